//! Imports run one way: no module of a crate imports from one that imports from it, directly or
//! through others.
//!
//! A module is a file. A name that a module re-exports is followed to the file that defines it. A
//! re-export of something below a module does not count as an import. Besides files, the top-level
//! modules of a crate are compared as wholes, so that two folders do not import from each other
//! either.

use super::files::{files, read};
use super::tokens::{Token, tokens};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The crates whose modules are checked.
const CRATES: [&str; 3] = ["engine", "backfill", "cli"];

/// Known circles. The list must shrink: an entry that is no longer found also fails the test.
const ALLOWED: [&str; 0] = [];

#[test]
fn imports_run_one_way() {
    let mut found = BTreeSet::new();
    for name in CRATES {
        let sources: Vec<Source> = sources(name);
        assert!(
            sources.len() > 10,
            "{name}: too few sources: {}",
            sources.len()
        );
        found.extend(
            circles(&sources)
                .into_iter()
                .map(|circle| format!("{name}: {circle}")),
        );
    }

    let allowed: BTreeSet<String> = ALLOWED.iter().map(|circle| (*circle).to_owned()).collect();
    let new: Vec<&String> = found.difference(&allowed).collect();
    assert!(
        new.is_empty(),
        "import circles: {new:#?}\nmove the shared items into a module that imports from neither"
    );
    let gone: Vec<&String> = allowed.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "not found any more, remove it from ALLOWED: {gone:#?}"
    );
}

#[test]
fn import_rule_finds_a_circle() {
    let circle_of = |sources: &[(&str, &str)]| {
        let sources: Vec<Source> = sources
            .iter()
            .map(|(path, text)| source(path, text))
            .collect();
        circles(&sources)
    };
    let root = "mod a; mod b; mod c; pub use b::Thing; pub use c::Other;";

    for (a, b, c) in [
        ("use crate::b::Thing;", "use crate::a;", ""),
        ("use crate::{c::{Other, self}, b};", "use super::a::X;", ""),
        // Through a name that the root re-exports.
        ("use crate::Thing;", "fn f() { crate::a::f() }", ""),
        // Through a third module.
        ("use crate::b;", "use crate::c;", "use crate::a;"),
    ] {
        let found = circle_of(&[("lib.rs", root), ("a.rs", a), ("b.rs", b), ("c.rs", c)]);
        assert_eq!(found.len(), 1, "{a} {b} {c}: {found:?}");
        assert!(found[0].starts_with("a -> b -> "), "{found:?}");
    }
    // A folder's `mod.rs` uses a module below it, which uses the folder.
    let face = "mod x; use x::X; pub(crate) struct Face;";
    let files = [
        ("lib.rs", "mod d;"),
        ("d/mod.rs", face),
        ("d/x.rs", "use super::Face;"),
    ];
    assert_eq!(circle_of(&files), ["d -> d::x -> d"]);
    // Two folders that import from each other through different files.
    let files = [
        ("lib.rs", "mod d; mod e;"),
        ("d/mod.rs", "mod x; mod y;"),
        ("d/x.rs", "use crate::e::x::X;"),
        ("d/y.rs", ""),
        ("e/mod.rs", "mod x; mod y;"),
        ("e/x.rs", ""),
        ("e/y.rs", "use crate::d::y::Y;"),
    ];
    assert_eq!(circle_of(&files), ["d -> e -> d"]);
}

#[test]
fn import_rule_lets_pass_what_runs_one_way() {
    let sources = [
        ("lib.rs", "mod a; mod b; mod d; pub use a::A; pub use d::Z;"),
        ("a.rs", "use crate::b::B; // use crate::d::Z;\n"),
        (
            "b.rs",
            "const TEXT: &str = \"use crate::a\";\n\
             #[cfg(test)] mod tests { use super::*; use crate::a::A; }",
        ),
        ("d/mod.rs", "mod y; mod z; pub use z::Z;"),
        ("d/y.rs", "use super::Z; use crate::A;"),
        ("d/z.rs", "use std::fmt; mod inline { use super::F; }"),
    ];
    let sources: Vec<Source> = sources
        .iter()
        .map(|(path, text)| source(path, text))
        .collect();
    assert_eq!(circles(&sources), Vec::<String>::new());
}

/// A module: its path from the root of the crate, and its tokens.
struct Source {
    module: Vec<String>,
    tokens: Vec<Token>,
}

/// Returns a source by its path below `src/`.
fn source(path: &str, text: &str) -> Source {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let is_root = path == "lib" || path == "main";
    let module = path.split('/').map(str::to_owned);
    Source {
        module: if is_root {
            Vec::new()
        } else {
            module.collect()
        },
        tokens: tokens(text),
    }
}

/// Returns the sources of a crate.
fn sources(name: &str) -> Vec<Source> {
    let below = format!("{name}/src/");
    files("rs")
        .iter()
        .filter_map(|path| Some(source(path.strip_prefix(&below)?, &read(path))))
        .collect()
}

/// What a module says about other modules.
#[derive(Default)]
struct Said {
    /// The paths that it names, from the root of the crate.
    named: Vec<Vec<String>>,
    /// Its re-exports: the name, and the path from the root of the crate.
    exported: BTreeMap<String, Vec<String>>,
}

/// Which module imports from which; modules are named by their paths.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Returns one circle for each set of modules that import from each other, first of files, then of
/// whole folders.
fn circles(sources: &[Source]) -> Vec<String> {
    let said: BTreeMap<&[String], Said> = sources
        .iter()
        .map(|source| (source.module.as_slice(), said_by(source)))
        .collect();
    let (mut files, mut folders) = (Graph::new(), Graph::new());
    for (from, of_module) in &said {
        for path in &of_module.named {
            let to = defined_in(path, &said);
            if to.as_slice() != *from {
                let imports = files.entry(name(from)).or_default();
                imports.insert(name(&to));
            }
            // The root does not count as a folder: it imports from all of them.
            if let (Some(from), Some(to)) = (from.first(), to.first())
                && from != to
            {
                let imports = folders.entry(from.clone()).or_default();
                imports.insert(to.clone());
            }
        }
    }
    let mut found = circles_of(&files);
    let is_seen = |circle: &String| found.contains(circle);
    let of_folders: Vec<String> = circles_of(&folders);
    let of_folders: Vec<String> = of_folders.into_iter().filter(|c| !is_seen(c)).collect();
    found.extend(of_folders);
    found
}

fn name(module: &[String]) -> String {
    if module.is_empty() {
        "the root".to_owned()
    } else {
        module.join("::")
    }
}

/// Returns the module that defines the item at this path.
fn defined_in(path: &[String], said: &BTreeMap<&[String], Said>) -> Vec<String> {
    let mut path = path.to_vec();
    // A bound for chains of re-exports, which are much shorter.
    for _ in 0..path.len() + 8 {
        let module = (0..=path.len()).rev().map(|end| &path[..end]);
        let module = module.into_iter().find(|module| said.contains_key(module));
        let module = module.unwrap_or_default().to_vec();
        let Some(item) = path.get(module.len()) else {
            return module;
        };
        match said
            .get(module.as_slice())
            .and_then(|of| of.exported.get(item))
        {
            Some(exported) => path = exported.clone(),
            None => return module,
        }
    }
    panic!("a re-export that leads to itself: {path:?}");
}

/// Returns one circle for each set of modules that reach each other.
fn circles_of(graph: &Graph) -> Vec<String> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = graph
        .keys()
        .map(|from| (from, reachable(graph, from)))
        .collect();
    let mut seen: BTreeSet<&String> = BTreeSet::new();
    let mut found = Vec::new();
    for (from, to) in &reached {
        if !to.contains(from) || seen.contains(from) {
            continue;
        }
        let together = to
            .iter()
            .filter(|to| reached.get(*to).is_some_and(|r| r.contains(from)));
        seen.extend(together);
        found.push(shortest_way_back(graph, from).join(" -> "));
    }
    found
}

/// Returns everything that a module imports from, directly or through others.
fn reachable<'a>(graph: &'a Graph, from: &str) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&String> = graph.get(from).into_iter().flatten().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module) {
            next.extend(graph.get(module).into_iter().flatten());
        }
    }
    reached
}

/// Returns the shortest circle through a module that lies on one.
fn shortest_way_back(graph: &Graph, from: &str) -> Vec<String> {
    let mut ways = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for to in graph.get(way.last().unwrap()).into_iter().flatten() {
            let mut longer = way.clone();
            longer.push(to.clone());
            if to == from {
                return longer;
            }
            if seen.insert(to) {
                ways.push_back(longer);
            }
        }
    }
    panic!("{from} lies on no circle");
}

/// Reads what a module imports, names and re-exports.
fn said_by(source: &Source) -> Said {
    let text = |at: usize| {
        source
            .tokens
            .get(at)
            .map_or("", |token| token.text.as_str())
    };
    let children: BTreeSet<&str> = (0..source.tokens.len())
        .filter(|at| text(*at) == "mod" && text(at + 2) == ";")
        .map(|at| text(at + 1))
        .collect();
    let mut said = Said::default();
    // For each open bracket, whether it is the body of a module inside the file.
    let mut brackets: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < source.tokens.len() {
        let depth = brackets.iter().filter(|is_module| **is_module).count();
        match text(at) {
            "mod" if text(at + 2) == "{" && text(at + 1) == "tests" => {
                at = end_of_block(&source.tokens, at + 2);
                continue;
            }
            "{" => brackets.push(at >= 2 && text(at - 2) == "mod"),
            "}" => drop(brackets.pop()),
            // Excludes `use<...>`, the captures of an `impl` type.
            "use" if text(at + 1) != "<" => {
                let is_exported = at > 0 && matches!(text(at - 1), "pub" | ")");
                let mut paths = Vec::new();
                at = read_tree(&source.tokens, at + 1, &[], &mut paths);
                for (path, as_name) in paths {
                    let Some(path) = from_root(&path, source, depth, &children) else {
                        continue;
                    };
                    if is_exported {
                        let _ = said.exported.insert(as_name, path.clone());
                    }
                    if !(is_exported && path.starts_with(&source.module)) {
                        said.named.push(path);
                    }
                }
                continue;
            }
            "crate" | "super" if text(at + 1) == "::" && (at == 0 || text(at - 1) != "::") => {
                let mut path = vec![text(at).to_owned()];
                while text(at + 1) == "::" && is_name(text(at + 2)) {
                    path.push(text(at + 2).to_owned());
                    at += 2;
                }
                said.named
                    .extend(from_root(&path, source, depth, &children));
            }
            _ => {}
        }
        at += 1;
    }
    said
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Returns the index after the block whose bracket is at `at`.
fn end_of_block(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Reads the tree of a `use` into paths, each with its local name. Returns the index after it.
fn read_tree(
    tokens: &[Token],
    mut at: usize,
    before: &[String],
    paths: &mut Vec<(Vec<String>, String)>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut path = before.to_vec();
    loop {
        match text(at) {
            "{" => {
                at += 1;
                while !matches!(text(at), "}" | ";" | "") {
                    at = read_tree(tokens, at, &path, paths);
                    if text(at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "::" => at += 1,
            "as" => {
                paths.push((path, text(at + 1).to_owned()));
                return at + 2;
            }
            "," | "}" | ";" | "" => {
                let name = path.last().cloned().unwrap_or_default();
                paths.push((path, name));
                return at;
            }
            // `self` is the module itself, and `*` everything in it.
            "self" if path.len() > before.len() || !before.is_empty() => at += 1,
            "*" => at += 1,
            word => {
                path.push(word.to_owned());
                at += 1;
            }
        }
    }
}

/// Returns a path from the root of the crate; `None` for a path into another crate. `depth` is the
/// number of modules inside the file around it.
fn from_root(
    path: &[String],
    source: &Source,
    depth: usize,
    children: &BTreeSet<&str>,
) -> Option<Vec<String>> {
    let first = path.first()?.as_str();
    let of = |module: &[String], rest: &[String]| [module, rest].concat();
    match first {
        "crate" => Some(path[1..].to_vec()),
        "self" => Some(of(&source.module, &path[1..])),
        "super" => {
            let supers = path.iter().take_while(|part| *part == "super").count();
            let up = supers.saturating_sub(depth).min(source.module.len());
            let module = &source.module[..source.module.len() - up];
            Some(of(module, &path[supers..]))
        }
        child if children.contains(child) => Some(of(&source.module, path)),
        _ => None,
    }
}
