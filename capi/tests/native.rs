//! C and C++ programs against what `cargo xtask install` lays out: shared and static, by hand, by pkg-config and by CMake.
//!
//! Programs that take files get the small random pair of `tests/golden/transformers`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

const WARNINGS: &[&str] = &["-Wall", "-Wextra", "-Werror", "-pedantic", "-g"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn native(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/native").join(name)
}

fn example(name: &str) -> PathBuf {
    repository().join("examples").join(name)
}

fn golden(name: &str) -> PathBuf {
    repository().join("tests/golden/transformers").join(name)
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command that must succeed; its standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Where a program can be found; none with a message if it cannot, and its test skips.
fn find(program: &str) -> Option<&str> {
    let found = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: no {program}");
    }
    found.then_some(program)
}

/// The installed tree, moved after it was made: nothing in it may say where that was.
static INSTALLED: LazyLock<PathBuf> = LazyLock::new(|| {
    let (made, moved) = (scratch("native").join("made"), scratch("native").join("installed"));
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut install = Command::new(env!("CARGO"));
    install.current_dir(repository()).args(["run", "--quiet", "--package", "xtask", "--", "install"]);
    run(install.args(["--profile", profile, "--prefix"]).arg(&made));
    let _ = fs::remove_dir_all(&moved);
    fs::rename(made, &moved).unwrap();
    moved
});

#[derive(Clone, Copy)]
enum Link {
    Shared,
    Static,
}

/// Compiles C or C++ sources into a program of that name.
fn compile(name: &str, sources: &[PathBuf], link: Link) -> PathBuf {
    let lib = INSTALLED.join("lib");
    let plus = sources[0].extension().is_some_and(|e| e != "c");
    let program = scratch("native").join(match link {
        Link::Shared => format!("{name}-shared"),
        Link::Static => format!("{name}-static"),
    });
    let mut compiler = Command::new(if plus { "c++" } else { "cc" });
    compiler.arg(if plus { "-std=c++17" } else { "-std=c11" }).args(WARNINGS).arg("-I").arg(INSTALLED.join("include"));
    compiler.args(sources).arg("-o").arg(&program);
    match link {
        Link::Shared => compiler.arg("-L").arg(&lib).args(["-lllava", "-lpthread"]),
        Link::Static => compiler.arg(lib.join("libllava.a")).args(system_libraries()),
    };
    run(&mut compiler);
    program
}

/// What llava.pc says that a program which links libllava.a needs too.
fn system_libraries() -> Vec<String> {
    let pc = fs::read_to_string(INSTALLED.join("lib/pkgconfig/llava.pc")).unwrap();
    let line = pc.lines().find_map(|line| line.strip_prefix("Libs.private: ")).unwrap();
    line.split(' ').map(str::to_owned).collect()
}

/// A program that finds the installed library.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", INSTALLED.join("lib"));
    command
}

/// The same under valgrind, if there is one: no errors, and nothing lost.
fn under_valgrind(program: &Path) -> Option<Command> {
    let mut command = command(Path::new(find("valgrind")?));
    command.args(["--quiet", "--error-exitcode=9", "--fair-sched=yes"]);
    command.args(["--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]);
    command.arg(program);
    Some(command)
}

fn pair() -> [PathBuf; 2] {
    [golden("llava/lm.gguf"), golden("images/wide.png")]
}

#[test]
fn bad_arguments_give_their_status() {
    let program = compile("arguments", &[native("arguments.c")], Link::Shared);
    let arguments = [golden("llava/lm.gguf"), golden("qwen2/lm.gguf"), golden("images/wide.png")];
    run(command(&program).args(&arguments));
    if let Some(mut checked) = under_valgrind(&program) {
        run(checked.args(&arguments));
    }
    // No function is left out.
    let source = fs::read_to_string(native("arguments.c")).unwrap();
    let untested: Vec<_> = exported().into_iter().filter(|f| !source.contains(&format!("{f}("))).collect();
    assert_eq!(untested, [""; 0]);
}

#[test]
fn handles_go_in_any_order_and_callbacks_stop_anywhere() {
    let program = compile("lifetimes", &[native("lifetimes.c")], Link::Shared);
    run(command(&program).args(pair()));
    if let Some(mut checked) = under_valgrind(&program) {
        run(checked.args(pair()));
    }
}

#[test]
fn threads_share_a_model_and_cancel_each_other() {
    let program = compile("threads", &[native("threads.c")], Link::Shared);
    for _ in 0..3 {
        run(command(&program).args(pair()));
    }
    run(command(&compile("threads", &[native("threads.c")], Link::Static)).args(pair()));
    if let Some(mut checked) = under_valgrind(&program) {
        run(checked.args(pair()));
    }
}

#[test]
fn loading_and_freeing_leaks_nothing() {
    let program = compile("leak", &[native("leak.c")], Link::Shared);
    println!("{}", run(command(&program).args(pair()).arg("200")));
}

#[test]
fn the_cpp_wrapper_does_all_of_it() {
    let arguments =
        [golden("llava/lm.gguf"), golden("llava/mmproj.gguf"), golden("images/wide.png"), scratch("wrapper")];
    for link in [Link::Shared, Link::Static] {
        run(command(&compile("wrapper", &[native("wrapper.cc")], link)).args(&arguments));
    }
    let sanitized = scratch("native").join("wrapper-asan");
    let mut compiler = Command::new("c++");
    compiler.args(["-std=c++17", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover", "-I"]);
    compiler.arg(INSTALLED.join("include")).arg(native("wrapper.cc")).arg("-o").arg(&sanitized);
    compiler.arg("-L").arg(INSTALLED.join("lib")).args(["-lllava", "-lpthread"]);
    run(&mut compiler);
    run(command(&sanitized).args(&arguments));
}

#[test]
fn headers_can_be_included_twice_in_many_units() {
    let units = [native("once_a.cc"), native("once_b.cc")];
    run(&mut command(&compile("once", &units, Link::Shared)));
}

/// The names that the shared library exports.
fn exported() -> Vec<String> {
    let output = run(Command::new("nm").args(["-D", "--defined-only"]).arg(INSTALLED.join("lib/libllava.so")));
    output.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned).collect()
}

/// Compares with a golden file, which `LLAVA_BLESS=1` writes.
fn assert_golden(name: &str, found: &str) {
    let path = native(name);
    if std::env::var_os("LLAVA_BLESS").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap();
    assert!(
        expected == found,
        "{name} differs; if programs that exist go on working, run with LLAVA_BLESS=1:\n{found}"
    );
}

#[test]
fn only_the_abi_is_exported() {
    assert_golden("symbols.txt", &(exported().join("\n") + "\n"));
    let statics = run(Command::new("nm").args(["--defined-only", "-g"]).arg(INSTALLED.join("lib/libllava.a")));
    for name in exported() {
        assert_eq!(statics.matches(&format!(" T {name}\n")).count(), 1, "{name} in libllava.a");
    }
    let needed = run(Command::new("readelf").arg("-d").arg(INSTALLED.join("lib/libllava.so")));
    assert!(needed.contains("soname: [libllava.so.0.1]"), "{needed}");
    assert!(!needed.contains("libstdc++"), "{needed}");
}

#[test]
fn structs_are_laid_out_as_ever() {
    let layout = run(&mut command(&compile("layout", &[native("layout.c")], Link::Shared)));
    assert_golden("layout.txt", &layout);
    // And as the header says, to a C and to a C++ compiler.
    let mut source = String::from("#include <llava.h>\n#include <assert.h>\nint main(void) { return 0; }\n");
    for line in layout.lines() {
        let [name, offset, size] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (structure, field) = name.split_once('.').unwrap();
        if field.is_empty() {
            source += &format!("static_assert(sizeof({structure}) == {size}, \"\");\n");
        } else {
            source += &format!("static_assert(offsetof({structure}, {field}) == {offset}, \"\");\n");
            source += &format!("static_assert(sizeof((({structure} *)0)->{field}) == {size}, \"\");\n");
        }
    }
    for name in ["layout_header.c", "layout_header.cc"] {
        let path = scratch("native").join(name);
        fs::write(&path, &source).unwrap();
        compile(name, &[path], Link::Shared);
    }
}

#[test]
fn examples_run_shared_and_static() {
    for link in [Link::Shared, Link::Static] {
        check_examples(
            &compile("describe", &[example("describe.c")], link),
            &compile("chat", &[example("chat.cpp")], link),
        );
    }
}

fn check_examples(describe: &Path, chat: &Path) {
    let [_, wide] = pair();
    let output = command(describe).arg(golden("llava")).args([&wide, Path::new("/nowhere"), &wide]).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Two answers, the same; and the image between them did not end it.
    let half = text.len() / 2;
    assert!(half > 0 && text[..half] == text[half..], "{text}");
    assert!(errors.contains("/nowhere: ") && output.status.code() == Some(1), "{errors}");
    assert_eq!(command(describe).status().unwrap().code(), Some(2));

    let questions = scratch("native").join("questions.txt");
    fs::write(&questions, "What is this?\n\nAnd?\n").unwrap();
    let input = fs::File::open(&questions).unwrap();
    let answers = run(command(chat).arg(golden("llava")).arg(&wide).stdin(input));
    assert_eq!(answers.matches("> ").count(), 4, "{answers}");
    let missing = command(chat).args(["/nowhere", "/nowhere"]).output().unwrap();
    assert!(missing.status.code() == Some(1) && String::from_utf8_lossy(&missing.stderr).contains("/nowhere"));
}

#[test]
fn pkg_config_finds_it() {
    let Some(pkg_config) = find("pkg-config") else { return };
    let path = INSTALLED.join("lib/pkgconfig");
    let flags = |options: &[&str]| -> Vec<String> {
        let text = run(Command::new(pkg_config).env("PKG_CONFIG_PATH", &path).args(options).arg("llava"));
        text.split_whitespace().map(str::to_owned).collect()
    };
    let program = scratch("native").join("by-pkg-config");
    run(Command::new("cc").arg(example("describe.c")).args(flags(&["--cflags", "--libs"])).arg("-o").arg(&program));
    run(command(&program).arg(golden("llava")).arg(&pair()[1]));
    assert_eq!(flags(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    assert!(flags(&["--libs", "--static"]).contains(&"-lm".to_owned()));
}

#[test]
fn cmake_finds_it() {
    let Some(cmake) = find("cmake") else { return };
    let build = scratch("native").join("cmake");
    let _ = fs::remove_dir_all(&build);
    let mut configure = Command::new(cmake);
    configure.arg("-S").arg(native("cmake")).arg("-B").arg(&build);
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", INSTALLED.display()));
    run(configure.arg(format!("-DEXAMPLES={}", repository().join("examples").display())));
    run(Command::new(cmake).arg("--build").arg(&build));
    for kind in ["shared", "static"] {
        check_examples(&build.join(format!("c_{kind}")), &build.join(format!("cc_{kind}")));
    }
}
