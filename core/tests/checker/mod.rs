//! Runs the tests of the model checker.
//!
//! A violation prints a schedule. `VBSTORE_SCHEDULE=<it>` replays it in the test that is named with it;
//! `VBSTORE_SEED` chooses the first schedule tried, `VBSTORE_SCHEDULES` how many.

/// Tries `schedules` random interleavings of a scenario.
pub(crate) fn check(schedules: u64, scenario: impl Fn() + Send + Sync + 'static) {
    let variable = |name: &str| std::env::var(name).ok();
    if let Some(schedule) = variable("VBSTORE_SCHEDULE") {
        return shuttle::replay(scenario, &schedule);
    }
    let number =
        |name: &str, default: u64| variable(name).map_or(default, |text| text.parse().unwrap());
    let schedules = usize::try_from(number("VBSTORE_SCHEDULES", schedules)).unwrap();
    shuttle::check_random_with_seed(scenario, number("VBSTORE_SEED", 1), schedules);
}
