//! The known name that a misspelt one may have meant.

/// The known key of the same last part, else of the most similar path.
pub(super) fn nearest_key(key: &str, keys: &[String]) -> Option<String> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let same = keys.iter().find(|known| last(known) == last(key));
    let sections = keys.iter().filter_map(|known| known.rsplit_once('.').map(|(section, _)| section));
    same.cloned().or_else(|| nearest(key, keys.iter().map(String::as_str).chain(sections)))
}

/// The name with the fewest edits, if it is like `name` at all: up to a third of its letters.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    let near = names.map(|known| (edits(name, known), known)).min()?;
    (near.0 <= name.len() / 3 + 1).then(|| near.1.to_owned())
}

/// Levenshtein's distance: insertions, deletions and replacements of one letter.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for column in 0..to.len() {
            let replaced = diagonal + usize::from(letter != to[column]);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
