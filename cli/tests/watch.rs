//! `watch` with all kinds of pages and terminals.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Serving, code, json, terminal, vbstore, within};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;

/// Starts a server that answers one request with each page, and status 200. Returns its address.
fn answer(pages: Vec<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::Builder::new()
        .name("pages".to_owned())
        .spawn(move || {
            for page in pages {
                let (mut connection, _) = listener.accept().unwrap();
                let mut request = BufReader::new(connection.try_clone().unwrap());
                let mut line = String::new();
                while request.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                let length = page.len();
                write!(
                    connection,
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
                )
                .unwrap();
            }
        })
        .unwrap();
    address
}

#[test]
fn a_page_that_is_not_of_an_exporter_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let other = "# TYPE up gauge\nup 1\n";
    let address = answer(vec!["<html>It works</html>", other, ""]);
    for _ in 0..3 {
        let (exit, printed) = code(&["watch", "--count", "1", &address], dir);
        assert_eq!(exit, 4, "{printed}");
        assert!(
            printed.contains("not a page of vbstore's metrics"),
            "{printed}"
        );
    }
    let serving = Serving::start(&["serve", "--dir", "s"], dir);
    let root = serving.url.replace("/metrics", "/");
    let (exit, printed) = code(&["watch", "--count", "1", &root], dir);
    assert_eq!(exit, 4, "{printed}");
    assert!(printed.contains("not a page of"), "{printed}");
    let none = serving.url.replace("/metrics", "/none");
    let (exit, printed) = code(&["watch", "--count", "1", "--json", &none], dir);
    assert_eq!(exit, 4, "{printed}");
    let message = json(&printed)["error"]["message"].clone();
    assert!(message.as_str().unwrap().contains("HTTP status 404"));
    serving.stop();
}

#[test]
fn a_server_that_goes_away_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = ["serve", "--dir", "s", "--vbuckets", "4"];
    let serving = Serving::start(&args, dir);
    let url = serving.url.clone();
    let address = url.trim_start_matches("http://");
    let address = address.trim_end_matches("/metrics").to_owned();
    let mut watch = vbstore()
        .args(["watch", "--json", "--interval", "0.05", &address])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut looks = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut until = |health: &str| {
        looks
            .by_ref()
            .map(|line| json(&line.unwrap()))
            .find(|look| look["health"] == health)
            .unwrap()
    };
    until("open");
    assert_eq!(serving.stop().0, 0);
    let missed = until("no_answer");
    assert!(missed["no_answer_seconds"].is_number(), "{missed}");
    assert!(missed["error"].is_string(), "{missed}");

    let serving = Serving::start_at(&address, &args, dir);
    let back = until("open");
    // The counters of the new server began at 0, so they fell. The rate must not be negative.
    assert!(back["writes_per_second"].as_f64().unwrap() >= 0.0, "{back}");
    assert_eq!(serving.stop().0, 0);
    until("no_answer");
    kill_process(Pid::from_child(&watch), Signal::TERM).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[test]
fn a_terminal_shows_as_much_as_fits_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let serving = Serving::start(&["serve", "--dir", "s", "--vbuckets", "4"], dir);
    for (columns, rows) in [(40, 12), (80, 24), (200, 50)] {
        let (mut control, terminal) = terminal(columns, rows);
        let mut watch = vbstore()
            .args(["watch", "--count", "3", "--interval", "0.05", &serving.url])
            .stdout(terminal)
            .spawn()
            .unwrap();
        within("it has ended", || watch.try_wait().unwrap().is_some());
        assert!(watch.wait().unwrap().success());
        let mut printed = Vec::new();
        // Linux reports an error at the end of a terminal that no program has open any more.
        drop(control.read_to_end(&mut printed));

        let printed = String::from_utf8(printed).unwrap();
        let screens: Vec<&str> = printed.split("\u{1b}[H").skip(1).collect();
        assert_eq!(screens.len(), 3, "{printed:?}");
        for screen in screens {
            let (screen, below) = screen.split_once("\u{1b}[J").unwrap();
            assert_eq!(below.trim_end(), "", "{screen:?}");
            let lines: Vec<&str> = screen.split('\n').collect();
            assert!(lines.len() <= rows.into(), "{screen:?}");
            for line in &lines {
                let line = line.trim_end().trim_start_matches("\u{1b}[2K");
                assert!(line.len() < columns.into(), "{line:?}");
            }
            let is_cut = lines.last().unwrap().contains("not shown: ");
            assert_eq!(is_cut, rows == 12, "{screen:?}");
        }
    }
    serving.stop();
}
