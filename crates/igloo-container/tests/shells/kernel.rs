use std::process::ExitCode;
pub(crate) const CASES: &[crate::Case] = &[];
pub(crate) fn do_exec(_: &[String]) -> ExitCode {
    ExitCode::FAILURE
}
pub(crate) fn hog(_: &[String]) -> ExitCode {
    ExitCode::FAILURE
}
pub(crate) fn do_bridge() -> ExitCode {
    ExitCode::FAILURE
}
