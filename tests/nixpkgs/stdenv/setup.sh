# Sourced by every build and by `nix develop`: `$stdenv/setup`, much smaller than the real one.
: "${outputs:=out}"
PATH=
_add() { # directory of a package
    case ":$PATH:" in *":$1/bin:"*) ;; *) if [ -d "$1/bin" ]; then PATH="${PATH:+$PATH:}$1/bin"; fi ;; esac
    if [ -d "$1/include" ]; then NIX_CFLAGS_COMPILE="${NIX_CFLAGS_COMPILE-} -I$1/include"; fi
    if [ -d "$1/lib" ]; then NIX_LDFLAGS="${NIX_LDFLAGS-} -L$1/lib -Wl,-rpath,$1/lib"; fi
    if [ -f "$1/nix-support/propagated-build-inputs" ]; then
        for _next in $(<"$1/nix-support/propagated-build-inputs"); do _add "$_next"; done
    fi
    if [ -f "$1/nix-support/setup-hook" ]; then source "$1/nix-support/setup-hook"; fi
}
for _dir in ${nativeBuildInputs-} ${buildInputs-} ${propagatedBuildInputs-}; do _add "$_dir"; done
for _dir in $initialPath; do PATH="${PATH:+$PATH:}$_dir/bin"; done
# The machine's assembler and linker, which its compiler starts.
if [ -z "${IN_NIX_SHELL-}" ]; then PATH="$PATH:/usr/bin"; fi
export PATH NIX_CFLAGS_COMPILE NIX_LDFLAGS
export SOURCE_DATE_EPOCH=1 LC_ALL=C
: "${HOME:=/homeless-shelter}"
unset _dir _next

runHook() { if declare -F "$1" >/dev/null; then "$1"; elif [ -n "${!1-}" ]; then eval "${!1}"; fi; }
runPhase() {
    local phase=$1
    if [ -n "${!phase-}" ]; then eval "${!phase}"; elif declare -F "$phase" >/dev/null; then "$phase"; fi
}
unpackPhase() {
    if [ -z "${src-}" ]; then return 0; fi
    if [ -d "$src" ]; then cp -r "$src" source && chmod -R u+w source && cd source; return; fi
    mkdir source && cd source && tar xf "$src" && cd -- */
}
configurePhase() {
    if [ -x ./configure ]; then bash ./configure --prefix="$out" CC=gcc ${configureFlags-}; fi
}
buildPhase() { if [ -f Makefile ] || [ -f makefile ]; then make CC=gcc SHELL=bash -j"${NIX_BUILD_CORES:-1}" ${makeFlags-}; fi; }
installPhase() { if [ -f Makefile ] || [ -f makefile ]; then make SHELL=bash install ${makeFlags-} ${installFlags-}; fi; }
fixupPhase() {
    if [ -n "${propagatedBuildInputs-}" ]; then
        local target=${dev-$out}
        mkdir -p "$target/nix-support"
        echo "$propagatedBuildInputs" >"$target/nix-support/propagated-build-inputs"
    fi
}
genericBuild() {
    local phase
    if [ -n "${buildCommand-}" ]; then eval "$buildCommand"; return; fi
    for phase in ${phases-unpackPhase patchPhase configurePhase buildPhase installPhase fixupPhase}; do
        runHook "pre${phase^}"; runPhase "$phase"; runHook "post${phase^}"
    done
}
