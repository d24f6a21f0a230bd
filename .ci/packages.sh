# shellcheck shell=bash disable=SC2154 # `tools` is the caller's
# Debian's packages, unpacked into a folder of this project's: nothing is installed, nobody need be root, and what the machine has or
# takes its own packages from is left alone. Sourced by scripts that say in `tools` which folder, and have `cannot REASON`.

# The machine's apt for packages of the given architectures, of the machine's own release or of the one that is named, with the names that
# its mirror has: unpack_begin ARCHITECTURES [RELEASE]
unpack_begin() {
  local tool
  for tool in apt-get apt-cache dpkg-deb; do
    command -v $tool >/dev/null || cannot "wants $tool: what it needs comes from Debian's packages"
  done
  rm -rf "$tools"
  mkdir -p "$tools"/apt/{state/lists/partial,cache/archives/partial,packages}
  # shellcheck disable=SC2086 # a list of words
  cat >"$tools/apt/conf" <<CONF
APT::Architecture "amd64";
APT::Architectures { $(printf '"%s"; ' $1)};
APT::Sandbox::User "";
Dir::State "$tools/apt/state";
Dir::State::status "/dev/null";
Dir::Cache "$tools/apt/cache";
Acquire::Languages "none";
CONF
  if [[ -n ${2:-} ]]; then
    local mirror
    # shellcheck disable=SC2016 # apt's variables
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | awk '!/security/ && !found++') &&
      [[ -n $mirror ]] || cannot "apt knows no mirror of Debian"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$mirror" "$2" >"$tools/apt/sources"
    printf 'Dir::Etc::sourcelist "%s";\nDir::Etc::sourceparts "/dev/null";\n' "$tools/apt/sources" >>"$tools/apt/conf"
  fi
  export APT_CONFIG=$tools/apt/conf
  apt_or_cannot update
}

# Runs apt-get, which tells a file.
apt_or_cannot() { apt-get -q "$@" >>"$tools/apt/log" 2>&1 || cannot "apt-get $1 failed: $(tail -n 1 "$tools/apt/log")"; }

# Unpacks what was downloaded.
unpack_end() {
  unset APT_CONFIG
  local package
  for package in "$tools"/apt/{packages,cache/archives}/*.deb; do
    [[ ! -e $package ]] || dpkg-deb -x "$package" "$tools"
  done
  rm -rf "$tools/apt"
}
