//! Files that include files: what is found, and what is refused.

use model::load::{Disk, Loaded, Memory, load};
use std::path::Path;

/// `files`: path and text, the root first. `expected`: `FILE:LINE CODE` of each mistake, or the services' names.
#[track_caller]
fn check(files: &[(&'static str, &'static str)], expected: &[&str]) {
    let loaded = load(&Memory::new(files.iter().copied()), Path::new(files[0].0));
    assert_eq!(told(&loaded), expected, "{:#?}", loaded.diagnostics);
}

fn told(loaded: &Loaded) -> Vec<String> {
    if let Some(system) = loaded.system() {
        return system.services.iter().map(|it| it.name.value.clone()).collect();
    }
    let line = |it: &model::diagnostic::Diagnostic| {
        let source = &loaded.sources.files[it.span.file as usize];
        let line = source.text[..it.span.start as usize].matches('\n').count() + 1;
        format!("{}:{line} {}", source.path.display(), it.code)
    };
    loaded.diagnostics.iter().map(line).collect()
}

#[test]
fn sections_of_all_files_are_one() {
    check(
        &[
            (
                "sys/isobar.yaml",
                "isobar: 1\ninclude: [teams/*.yaml, more/**/*.yaml]\nservices:\n  a: {team: t}\n",
            ),
            ("sys/teams/one.yaml", "teams: {t: {}}\nservices: {b: {needs: [a, c]}}\n"),
            ("sys/more/deep/er/two.yaml", "services: {c: {}}\n"),
            ("sys/more/.hidden.yaml", "services: {no: {}}\n"),
            ("sys/teams/readme.md", "no yaml"),
        ],
        &["a", "b", "c"],
    );
}

#[test]
fn a_file_may_find_itself_by_a_pattern_but_not_name_itself() {
    check(&[("isobar.yaml", "isobar: 1\ninclude: ['*.yaml']\nservices: {a: {}}\n")], &["a"]);
    check(
        &[("isobar.yaml", "isobar: 1\ninclude: [isobar.yaml]\nservices: {a: {}}\n")],
        &["isobar.yaml:2 E0103"],
    );
    check(
        &[
            ("isobar.yaml", "isobar: 1\ninclude: [b.yaml]\nservices: {a: {}}\n"),
            ("b.yaml", "include: [c.yaml]\n"),
            ("c.yaml", "include: [b.yaml]\n"),
        ],
        &["c.yaml:1 E0103"],
    );
}

#[test]
fn nothing_outside_is_read() {
    for include in ["../x.yaml", "/etc/passwd", "a/../../x.yaml"] {
        let text = format!("isobar: 1\ninclude: ['{include}']\nservices: {{a: {{team: t}}}}\n");
        let loaded = load(&Memory::new([("isobar.yaml", &*text.leak())]), Path::new("isobar.yaml"));
        assert_eq!(told(&loaded), ["isobar.yaml:2 E0102"], "{include}");
    }
}

#[test]
fn what_is_missing_makes_no_name_undefined() {
    check(
        &[("isobar.yaml", "isobar: 1\ninclude: [nowhere/*.yaml]\nservices: {a: {team: t, needs: [b]}}\n")],
        &["isobar.yaml:2 E0101"],
    );
    check(
        &[
            ("isobar.yaml", "isobar: 1\ninclude: [b.yaml]\nservices: {a: {team: t}}\n"),
            ("b.yaml", "teams: {t: {}\n"),
        ],
        &["b.yaml:1 E0006"],
    );
}

#[test]
fn a_name_defined_in_two_files_is_one_mistake() {
    check(
        &[
            ("isobar.yaml", "isobar: 1\ninclude: [b.yaml]\nservices: {a: {}}\n"),
            ("b.yaml", "system: other\nservices: {a: {}}\n"),
        ],
        &["b.yaml:1 E0211", "b.yaml:2 E0207"],
    );
}

#[test]
fn durations_are_read_from_beside_the_file() {
    let text = "isobar: 1\nservices: {a: {operations: {x: empirical(work.csv), y: empirical(none.csv)}}}\n";
    check(
        &[("s/isobar.yaml", text), ("s/work.csv", "# measured\n1ms\n2ms, 3\n")],
        &["s/isobar.yaml:2 E0105"],
    );
    let text = "isobar: 1\nservices: {a: {operations: {x: empirical(work.csv)}}}\n";
    check(&[("s/isobar.yaml", text), ("s/work.csv", "1ms\nsoon\n")], &["s/isobar.yaml:2 E0105"]);
    check(&[("s/isobar.yaml", text), ("s/work.csv", "1ms\n")], &["a"]);
}

#[cfg(unix)]
#[test]
fn links_lead_nowhere_else() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("root");
    std::fs::create_dir(&root).expect("a folder");
    std::fs::write(folder.path().join("outside.yaml"), "teams: {t: {}}\n").expect("a file");
    std::fs::write(root.join("inside.yaml"), "teams: {u: {}}\n").expect("a file");
    symlink(folder.path().join("outside.yaml"), root.join("out.yaml")).expect("a link");
    symlink("inside.yaml", root.join("in.yaml")).expect("a link");
    symlink("round.yaml", root.join("round.yaml")).expect("a link");
    for (include, expected) in [("out.yaml", "E0102"), ("round.yaml", "E0101"), ("in.yaml", "")] {
        let text = format!("isobar: 1\ninclude: [{include}]\nservices: {{a: {{}}}}\n");
        std::fs::write(root.join("isobar.yaml"), text).expect("a file");
        let loaded = load(&Disk, &root);
        let codes: Vec<&str> = loaded.diagnostics.iter().map(|it| it.code).collect();
        assert_eq!(codes.concat(), expected, "{include}");
    }
}

#[test]
fn a_folder_is_its_isobar_yaml_and_gives_the_name() {
    let files = Memory::new([("my-shop/isobar.yaml", "isobar: 1\nservices: {a: {}}\n")]);
    let loaded = load(&files, Path::new("my-shop"));
    assert_eq!(loaded.system().expect("it is good").name, "my-shop");
    assert_eq!(load(&files, Path::new("elsewhere")).diagnostics[0].code, "E0001");
}
