//! `key`: the keys of this device.

use serde::Serialize;

use super::work::alone;
use super::{Context, print, print_json};
use crate::backup::device::{self, Keys};
use crate::cli::KeyCommand;
use crate::edge::Machine;
use crate::error::{Error, ErrorKind, Exit};

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    exit: u8,
    device: String,
    /// Opens what is encrypted to it.
    restore_recipient: String,
    /// The second line of a minisign public key file.
    signing_key: String,
}

/// Runs one of them.
pub fn run(context: &mut Context, what: KeyCommand) -> Result<Exit, Error> {
    let settings = context.settings.clone();
    let cannot =
        |e: std::io::Error| Error::io(ErrorKind::Read, "cannot use the keys of this device", &settings.key_restore, &e);
    let keys = match what {
        KeyCommand::Show => device::keys(context.machine.as_look(), &settings).map_err(cannot)?,
        KeyCommand::Init => {
            let _locks = alone(context)?;
            Some(device::init(&mut context.machine, &settings).map_err(cannot)?)
        }
    };
    let Some(keys) = keys else {
        let advice = "run `key init` once";
        return Err(Error::new(ErrorKind::Read, "cannot show the keys", "this device has none yet", advice));
    };
    tell(context, &keys)
}

fn tell(context: &Context, keys: &Keys) -> Result<Exit, Error> {
    let Some(device) = device::id(context.machine.as_look(), &context.settings) else {
        let advice = "set [device] id_from, or run `key init`, which makes an id";
        return Err(Error::new(ErrorKind::Read, "cannot show the keys", "this device has no id", advice));
    };
    let report = Report {
        schema: "pyvorin-recovery/key/1",
        exit: 0,
        device,
        restore_recipient: keys.restore.to_public().to_string(),
        signing_key: keys.signing.public().line().to_string(),
    };
    if context.json {
        print_json(&report)?;
        return Ok(Exit::OK);
    }
    print(&format!("device      {}", report.device));
    print(&format!("recipient   {}", report.restore_recipient));
    print("public key of its signatures, as a file for minisign -p:");
    print(keys.signing.public().text().trim_end());
    Ok(Exit::OK)
}
