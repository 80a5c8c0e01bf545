//! Flags by the spelling that they had, understood for one release.
//!
//! Invariant: what a line says is only spelt anew here; a word that changes is said so,
//! and so is a flag that kept its spelling and changed its meaning.

use std::ffi::OsString;

/// In these verbs, a flag that is spelt otherwise now.
const RESPELT: [(&[&str], &str, &str); 3] = [
    (&["warm", "render", "key", "why"], "--tokens", "--tokens-per-pass"),
    (&["bench", "dispatch"], "--nat", "--tokens"),
    (&["regions"], "--num-seqs", "--tokens"),
];

/// Verbs in which `--tokens` was the constant, with a word that goes with it.
const CHANGED: [&[&str]; 3] = [&["dispatch"], &["regions", "--live"], &["bench", "layer"]];

/// The line as it is written today, and a note for each word that it had otherwise.
#[must_use]
pub fn respelt(words: &[OsString], verb_at: Option<usize>) -> (Vec<OsString>, Vec<String>) {
    let (mut line, mut notes) = (words.to_vec(), Vec::new());
    let Some((at, verb)) = verb_at.and_then(|at| Some((at, words[at].to_str()?))) else {
        return (line, notes);
    };
    // A word that is not text is a path: no flag that was ever spelt otherwise takes one.
    let flag = |word: &OsString| {
        let word = word.to_str().unwrap_or_default();
        word.split_once('=').map_or(word, |(flag, _)| flag).to_owned()
    };
    let says = |word: &str| words[at + 1..].iter().any(|w| flag(w) == word);
    if CHANGED
        .iter()
        .any(|c| c[0] == verb && c[1..].iter().all(|word| says(word)))
        && says("--tokens")
    {
        notes.push(
            "note: --tokens is the number of tokens of a launch; the constant that it set before is --tokens-per-pass"
                .to_owned(),
        );
    }
    for word in &mut line[at + 1..] {
        let written = flag(word);
        let known = |(verbs, former, _): &&(&[&str], &str, &str)| verbs.contains(&verb) && *former == written;
        if let Some((_, former, present)) = RESPELT.iter().find(known) {
            *word = word.to_string_lossy().replacen(former, present, 1).into();
            notes.push(format!(
                "note: {verb} {former} is called {present}; the former spelling will go"
            ));
        }
    }
    (line, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> (String, usize) {
        let words: Vec<OsString> = text.split(' ').map(OsString::from).collect();
        let (line, notes) = respelt(&words, Some(1));
        let line: Vec<&str> = line.iter().filter_map(|word| word.to_str()).collect();
        (line.join(" "), notes.len())
    }

    #[test]
    fn former_spellings_are_spelt_anew_and_noted() {
        for (before, after, notes) in [
            (
                "jitc warm --tokens 2,4 -q",
                "jitc warm --tokens-per-pass 2,4 -q",
                1,
            ),
            ("jitc key gemv --tokens=2", "jitc key gemv --tokens-per-pass=2", 1),
            ("jitc bench layer --nat 1", "jitc bench layer --tokens 1", 1),
            ("jitc dispatch --nat=4", "jitc dispatch --tokens=4", 1),
            ("jitc regions --num-seqs 2", "jitc regions --tokens 2", 1),
        ] {
            assert_eq!(line(before), (after.to_owned(), notes));
        }
    }

    #[test]
    fn a_flag_that_changed_its_meaning_is_noted_and_left() {
        for verb in [
            "dispatch",
            "regions --live wo_gemv",
            "regions --live=k",
            "bench layer",
        ] {
            let line_of = format!("jitc {verb} --tokens 4");
            assert_eq!(line(&line_of), (line_of.clone(), 1), "{verb}");
        }
    }

    #[test]
    fn what_means_what_it_did_is_left_alone() {
        for same in [
            "jitc bench wo_gemv --tokens 4",
            "jitc tune wo_gemv --tokens 1,4",
            "jitc warm --tokens-per-pass 2",
            "jitc extract --num-seqs 2",
            "jitc regions FILE.npy --tokens 2",
            "jitc dispatch --max-tokens 8",
        ] {
            assert_eq!(line(same), (same.to_owned(), 0));
        }
    }
}
