//! Runs a scenario under the model checker.
//!
//! A violation prints a schedule. `VBSTORE_SCHEDULE=<schedule>` replays it in the test that failed.
//! `VBSTORE_SEED` selects the first schedule to try, and `VBSTORE_SCHEDULES` their number.

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
