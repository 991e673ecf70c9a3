fn main() -> std::process::ExitCode {
    tidewater_server::cli::main(std::env::args_os())
}
