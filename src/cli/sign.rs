//! `jitc sign`: keys, and signatures of entries, bundles and receipts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgGroup, ArgMatches, Command, value_parser};
use serde_json::json;

use super::cache::filter::{filter_args, query, split};
use super::cache::user_store;
use super::{Answer, output};
use crate::engine::cache::{SignedFile, Signer, sign_file, signers_of_file};
use crate::engine::jit::{Error, Jit};
use crate::engine::regular_file::named;
use crate::engine::request::template::Registry;
use crate::engine::sign::{KeyError, SecretKey, SignatureFault, read_secret, read_secret_from, write_secret};

pub(super) fn command(_: &Registry) -> Command {
    let files = || {
        Arg::new("file")
            .num_args(0..)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
    };
    let keygen = Command::new("keygen")
        .about("Make a key: the secret goes into a new file, the public key is printed")
        .arg(
            Arg::new("name")
                .required(true)
                .value_name("NAME-N")
                .help("Name and number, such as fleet-1; the number counts up when keys rotate"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .short('o')
                .required(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("The file of the secret key, which must not be there"),
        );
    let sign = Command::new("sign")
        .about("Sign bundles and receipts, or the entries of the folder that is written to")
        .arg(files().help("Bundles and receipts; without one, the folder's entries that fit the filter"))
        .args([
            Arg::new("key")
                .long("key")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("File of the secret key, which nobody else may read"),
            Arg::new("key-fd")
                .long("key-fd")
                .value_name("N")
                .value_parser(value_parser!(u32))
                .help("Descriptor to read the secret key from"),
        ])
        .group(ArgGroup::new("secret").args(["key", "key-fd"]).required(true));
    let verify = Command::new("verify")
        .about("Say by which trusted key bundles, receipts or the folder's entries are signed")
        .arg(files().help("Bundles and receipts; without one, the folder's entries that fit the filter"));
    Command::new("sign")
        .about("Make keys, sign what the cache holds and carries, and verify signatures")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([keygen, filter_args(sign), filter_args(verify)])
}

pub(super) fn run(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    match matches.subcommand() {
        Some(("keygen", matches)) => Ok(keygen(matches, json)),
        Some(("sign", matches)) => sign(jit, matches, json),
        Some(("verify", matches)) => verify(jit, matches, json),
        _ => Ok(ExitCode::from(2)),
    }
}

fn keygen(matches: &ArgMatches, as_json: bool) -> ExitCode {
    let name = matches.get_one::<String>("name").map_or("", String::as_str);
    let path = matches.get_one::<PathBuf>("out").cloned().unwrap_or_default();
    let made = SecretKey::generate(name).and_then(|key| {
        write_secret(&path, &key)?;
        Ok(key.public())
    });
    match made {
        Ok(public) if as_json => {
            output::json(&json!({"file": path.to_string_lossy(), "public": public.to_string()}));
        }
        Ok(public) => output::line(public.to_string()),
        Err(error) => return failed(&error),
    }
    ExitCode::SUCCESS
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    output::error(error);
    ExitCode::from(2)
}

fn files(matches: &ArgMatches) -> Vec<&PathBuf> {
    matches
        .get_many::<PathBuf>("file")
        .into_iter()
        .flatten()
        .collect()
}

fn secret(matches: &ArgMatches) -> Result<SecretKey, KeyError> {
    match matches.get_one::<u32>("key-fd") {
        // As the shell names it; opened anew, where it stands.
        Some(number) => read_secret_from(fs_err::File::open(format!("/dev/fd/{number}"))?),
        None => read_secret(
            matches
                .get_one::<PathBuf>("key")
                .map_or(Path::new(""), PathBuf::as_path),
        ),
    }
}

fn sign(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let secret = match secret(matches) {
        Ok(secret) => secret,
        Err(error) => return Ok(failed(&error)),
    };
    let files = files(matches);
    if files.is_empty() {
        return sign_entries(jit, matches, &secret, json);
    }
    let by = secret.public();
    for path in files {
        let signed = match sign_file(path, &secret) {
            Ok(SignedFile::Bundle { entries }) => format!("{entries} entries"),
            Ok(_) => "receipt".to_owned(),
            Err(reason) => return Ok(failed(&named(path, reason))),
        };
        if json {
            output::json(
                &json!({"event": "signed", "file": path.to_string_lossy(), "by": by.name(), "what": signed}),
            );
        } else {
            output::line(format!("{}: {signed} signed by {}", path.display(), by.name()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn sign_entries(jit: &Jit, matches: &ArgMatches, secret: &SecretKey, json: bool) -> Answer {
    let Some(store) = user_store(jit)? else {
        return Ok(failed(
            &"there is no cache folder: set HOME, JITC_CACHE_DIR or --cache-dir",
        ));
    };
    let filter = query(matches);
    let (meant, others) = split(jit, &filter);
    let meant: Vec<_> = meant.iter().filter(|row| row.tier.as_str() == "user").collect();
    if meant.is_empty() {
        let all = others.len();
        output::error(format!(
            "{}: no entry fits{}, of {all} others",
            store.root().display(),
            filter.unknown_name(&others)
        ));
        return Ok(ExitCode::from(1));
    }
    let name = secret.public().name().to_owned();
    let (mut signed, mut left) = (0, 0);
    for row in meant {
        let key = row.record.key;
        match store.sign(&key, secret) {
            Ok(true) => {
                signed += 1;
                if json {
                    output::json(&json!({"event": "signed", "key": key, "by": name}));
                }
            }
            Ok(false) => {
                left += 1;
                output::note(format!("not signed, since it is in use: {key}"));
            }
            Err(error) => {
                left += 1;
                output::error(format!("not signed: {error}"));
            }
        }
    }
    if !json {
        output::line(format!(
            "{signed} entries signed by {name}: {}",
            store.root().display()
        ));
    }
    Ok(ExitCode::from(u8::from(left > 0)))
}

fn verify(jit: &Jit, matches: &ArgMatches, json: bool) -> Answer {
    let trusted = jit.signing().keys();
    if trusted.is_empty() {
        return Err(Error::NoTrustedKey.into());
    }
    let mut good = true;
    let mut say = |what: &str, signer: Signer| {
        good &= signer.is_ok();
        if json {
            let (by, fault) = (signer.as_ref().ok(), signer.as_ref().err());
            output::json(
                &json!({"event": "verified", "what": what, "by": by, "fault": fault.map(ToString::to_string)}),
            );
        } else {
            match signer {
                Ok(name) => output::line(format!("{what}: signed by {name}")),
                Err(fault) => output::line(format!("{what}: {fault}")),
            }
        }
    };
    let files = files(matches);
    for path in &files {
        match signers_of_file(path, trusted) {
            Ok(found) => found.into_iter().for_each(|(key, signer)| {
                let what = key.map_or("receipt".to_owned(), |key| key.to_string());
                say(&format!("{}: {what}", path.display()), signer);
            }),
            Err(reason) => return Ok(failed(&named(path, reason))),
        }
    }
    if files.is_empty() {
        let (meant, _) = split(jit, &query(matches));
        for row in &meant {
            let (key, tier) = (row.record.key, &row.tier);
            let signer = jit.cache().signer_of(row, trusted).unwrap_or_else(|| {
                output::note(format!(
                    "{key} ({tier}) is not good: `jitc cache verify` says why"
                ));
                Err(SignatureFault::Missing)
            });
            say(&format!("{key} ({tier})"), signer);
        }
    }
    Ok(ExitCode::from(u8::from(!good)))
}
