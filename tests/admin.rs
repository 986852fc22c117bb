//! `mqadmin` as a process: exit codes and streams.

use std::process::{Command, Output};

fn mqadmin(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mqadmin")).args(args).env_remove("NAMESRV_ADDR").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn without_arguments_the_commands_are_listed() {
    let output = mqadmin(&[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("\n   clusterList  "));
}

#[test]
fn unknown_commands_exit_with_2() {
    let output = mqadmin(&["clusterlists"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "The sub command clusterlists not exist.\n");
}

#[test]
fn missing_options_exit_with_2_and_say_which() {
    let output = mqadmin(&["topicRoute", "-n", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--topic"));
}

#[test]
fn an_unreachable_name_server_exits_with_1_and_is_named() {
    let output = mqadmin(&["clusterList", "-n", "127.0.0.1:1"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert!(
        text(&output.stderr).starts_with("mqadmin: connect to 127.0.0.1:1: "),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn without_a_name_server_the_error_says_how_to_give_one() {
    let output = mqadmin(&["topicList"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "mqadmin: no name server is given: use -n host:port or set NAMESRV_ADDR\n";
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn the_environment_names_the_name_server() {
    let output = Command::new(env!("CARGO_BIN_EXE_mqadmin"))
        .arg("topicList")
        .env("NAMESRV_ADDR", "127.0.0.1:1")
        .output()
        .unwrap();
    assert!(text(&output.stderr).contains("127.0.0.1:1"));
}
