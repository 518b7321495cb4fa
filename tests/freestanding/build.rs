//! Link arguments of the binary alone: given here, not in RUSTFLAGS, they never reach build scripts and proc macros, and do not depend on
//! the directory cargo is called from.

fn main() {
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
