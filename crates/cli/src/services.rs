//! The verbs that change a running system: restart, stop, start, scale, down, and a command in a service's place.

use crate::client::{self, Which};
use crate::{exit, output};
use anyhow::Context;
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;
use up::state::{self, Folder};

/// One or several services of a running system
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Services of the running system
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,

    #[command(flatten)]
    which: Which,
}

pub(crate) fn order(args: &Named, word: &str) -> anyhow::Result<u8> {
    let found = args.which.find()?;
    client::all_known(&found, args.services.iter())?;
    for service in &args.services {
        client::ask(&found, "POST", &format!("/v1/services/{}/{word}", client::escape(service)), None)?;
    }
    Ok(exit::OK)
}

/// Change how many instances a service has, until the file changes: web=5
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For example:
  isobar scale web=5 cart=2
  isobar scale ads=0                    nobody is left; its callers meet that")]
pub(crate) struct Scale {
    /// Services, and how many instances each shall have
    #[arg(required = true, value_name = "SERVICE=COUNT", value_parser = scale_word)]
    wanted: Vec<(String, u32)>,

    #[command(flatten)]
    which: Which,
}

fn scale_word(text: &str) -> Result<(String, u32), String> {
    let (service, count) = text.split_once('=').ok_or("it is written web=5")?;
    Ok((service.to_owned(), count.parse().map_err(|_| format!("`{count}` is no number of instances"))?))
}

pub(crate) fn scale(args: &Scale) -> anyhow::Result<u8> {
    let found = args.which.find()?;
    client::all_known(&found, args.wanted.iter().map(|(service, _)| service))?;
    for (service, instances) in &args.wanted {
        let body = json!({"instances": instances});
        client::ask(&found, "PUT", &format!("/v1/services/{}/scale", client::escape(service)), Some(&body))?;
    }
    Ok(exit::OK)
}

/// Stop a running system
#[derive(Debug, clap::Args)]
pub(crate) struct Down {
    #[command(flatten)]
    which: Which,
}

pub(crate) fn down(args: &Down) -> anyhow::Result<u8> {
    let found = args.which.find()?;
    client::ask(&found, "POST", "/v1/down", None)?;
    let folder = Folder::new(&state::root(), &found.name);
    // The lock is free when its holder is gone, and with it everything it had started.
    while folder.is_held() {
        std::thread::sleep(Duration::from_millis(20));
    }
    output::words(&format!("`{}` is down\n", found.name));
    Ok(exit::OK)
}

/// Run a command with a service's environment: its ports, its neighbours, its place
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command runs in the service's folder, as its instance 0 would, in isobar's place: signals, the terminal and the exit
code are its own. 127: there is no such program; 126: it cannot be started.

For example:
  isobar exec web -- npm test
  isobar exec web -- sh -c 'curl $CART_URL/cart/7'")]
pub(crate) struct Exec {
    /// A service of the running system
    service: String,

    /// A program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,

    #[command(flatten)]
    which: Which,
}

pub(crate) fn exec(args: &Exec) -> anyhow::Result<u8> {
    let found = args.which.find()?;
    let path = format!("/v1/services/{}/environment", client::escape(&args.service));
    let answer: serde_json::Value = serde_json::from_str(&client::ask(&found, "GET", &path, None)?)?;
    let (program, rest) = args.command.split_first().context("a command is missing")?;
    let mut command = Command::new(program);
    command.args(rest).env_clear();
    for (name, value) in answer["variables"].as_object().into_iter().flatten() {
        command.env(name, value.as_str().unwrap_or(""));
    }
    if let Some(dir) = answer["dir"].as_str() {
        command.current_dir(dir);
    }
    // Only a failure comes back from this.
    let error = command.exec();
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    let why = match answer["dir"].as_str().filter(|it| !std::path::Path::new(it).is_dir()) {
        Some(dir) => format!("its folder `{dir}` does not exist"),
        None if is_missing && !program.contains('/') => {
            "no program is called that (looked in PATH)".to_owned()
        }
        None => error.to_string(),
    };
    output::words(&format!("error: cannot start `{program}`: {why}\n"));
    Ok(if is_missing { 127 } else { 126 })
}
