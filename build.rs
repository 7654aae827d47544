//! Names the shared library (its soname) and, for the feature `blas`, makes a private copy of OpenBLAS's sgemm. Nothing is
//! downloaded.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(engine_openblas)");
    let os = var("CARGO_CFG_TARGET_OS");
    // The number grows with an incompatible change of the ABI, which before 1.0 is not the version's first part.
    match os.as_str() {
        "linux" => println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libengine.so.0"),
        "macos" => println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libengine.0.dylib"),
        _ => (),
    }
    if env::var_os("CARGO_FEATURE_BLAS").is_none() || env::var_os("CARGO_FEATURE_BLAS_SYSTEM").is_some() {
        return;
    }
    if (os.as_str(), var("CARGO_CFG_TARGET_ARCH").as_str()) != ("linux", "x86_64") {
        return; // src/blas.rs knows that OpenBLAS's ways; elsewhere our own kernels work
    }
    println!("cargo::rerun-if-env-changed=ENGINE_OPENBLAS");
    match private_openblas() {
        Ok(dir) => {
            println!("cargo::rustc-link-search=native={}", dir.display());
            println!("cargo::rustc-link-lib=static=engine_openblas");
            println!("cargo::rustc-cfg=engine_openblas");
        }
        Err(why) => {
            println!("cargo::warning=without OpenBLAS, f32 prompts are slower on CPUs with AVX-512: {why}");
            // Look again when a package has been installed.
            if Path::new(DPKG_STATUS).exists() {
                println!("cargo::rerun-if-changed={DPKG_STATUS}");
            }
        }
    }
}

const DPKG_STATUS: &str = "/var/lib/dpkg/status";
/// Where distributions keep the single-threaded static library; the environment variable ENGINE_OPENBLAS names another.
const ARCHIVES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/openblas-serial/libopenblas.a", // Debian, Ubuntu: libopenblas-serial-dev
    "/usr/lib64/libopenblas.a",                                // Fedora: openblas-static
    "/usr/lib/libopenblas.a",
];
/// CPUs older than AVX2: src/blas.rs leaves them to our own kernels, so theirs need not be carried (18 MB).
const OLD_CPUS: [&str; 19] = [
    "KATMAI",
    "COPPERMINE",
    "NORTHWOOD",
    "BANIAS",
    "ATHLON",
    "CORE2",
    "PENRYN",
    "DUNNINGTON",
    "ATOM",
    "NANO",
    "NEHALEM",
    "OPTERON",
    "OPTERON_SSE3",
    "BARCELONA",
    "BOBCAT",
    "SANDYBRIDGE",
    "BULLDOZER",
    "PILEDRIVER",
    "STEAMROLLER",
];

/// Links `cblas_sgemm` and what tells whose CPU's kernels it runs, with what they need of a static single-threaded OpenBLAS, into one
/// object with no other global names, and puts it into `libengine_openblas.a`. So the library needs no OpenBLAS at run time, shares
/// none with the host (whose thread count it would have to set), and runs no start-up code that maps memory or makes threads.
fn private_openblas() -> Result<PathBuf, String> {
    let archive = match env::var_os("ENGINE_OPENBLAS") {
        Some(path) => PathBuf::from(path),
        None => ARCHIVES
            .iter()
            .map(PathBuf::from)
            .find(|a| a.exists())
            .ok_or("no static single-threaded OpenBLAS found (Debian: apt install libopenblas-serial-dev)")?,
    };
    println!("cargo::rerun-if-changed={}", archive.display());
    let bytes = std::fs::read(&archive).map_err(|e| format!("{}: {e}", archive.display()))?;
    if contains(&bytes, b"blas_server") {
        return Err(format!("{} makes threads of its own: a single-threaded build is needed", archive.display()));
    }

    let dir = PathBuf::from(var("OUT_DIR"));
    let (object, library) = (dir.join("openblas.o"), dir.join("libengine_openblas.a"));
    let mut link = tool("ld");
    link.args(["-r", "-u", "cblas_sgemm", "-u", "openblas_get_corename", "--wrap=blas_memory_alloc", "-o"]).arg(&object);
    if contains(&bytes, b"gotoblas_PRESCOTT") && contains(&bytes, b"gotoblas_HASWELL") {
        link.args(OLD_CPUS.map(|cpu| format!("--defsym=gotoblas_{cpu}=gotoblas_PRESCOTT")));
        // This one has AVX2, but code of its own with instructions that no other has.
        link.arg("--defsym=gotoblas_EXCAVATOR=gotoblas_HASWELL");
    }
    run(link.arg(&archive))?;
    // Its mmap and munmap become those of src/blas.rs, which cannot fail, and src/blas.rs stands between sgemm and the choice of a
    // buffer, which single-threaded builds make without a lock.
    run(tool("objcopy")
        .args(["--strip-unneeded", "--keep-global-symbol=cblas_sgemm", "--keep-global-symbol=openblas_get_corename"])
        .arg("--keep-global-symbol=engine_openblas_choose")
        .args(["--redefine-sym", "__wrap_blas_memory_alloc=engine_openblas_alloc"])
        .args(["--redefine-sym", "blas_memory_alloc=engine_openblas_choose"])
        .args(["--redefine-sym", "mmap=engine_openblas_map", "--redefine-sym", "munmap=engine_openblas_unmap"])
        .arg(&object))?;
    let _ = std::fs::remove_file(&library);
    run(tool("ar").arg("crs").arg(&library).arg(&object))?;
    Ok(dir)
}

fn contains(bytes: &[u8], name: &[u8]) -> bool {
    bytes.windows(name.len()).any(|w| w == name)
}

/// A program of the binutils, the target's own when cross-compiling.
fn tool(name: &str) -> Command {
    if var("HOST") == var("TARGET") { Command::new(name) } else { Command::new(format!("x86_64-linux-gnu-{name}")) }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{}: {e}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", command.get_program().display(), String::from_utf8_lossy(&output.stderr).replace('\n', " ")))
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
