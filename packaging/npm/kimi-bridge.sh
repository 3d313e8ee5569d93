#!/bin/sh
# Starts the program of this platform, which npm installed as a package of its own. `exec`, so that no process stays
# between the host and the program.
self=$0
while [ -L "$self" ]; do
  link=$(readlink "$self")
  case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
here=$(CDPATH= cd -P -- "$(dirname -- "$self")" && pwd)
case $(uname -s)-$(uname -m) in
  Linux-x86_64) platform=linux-x64 ;;
  Linux-aarch64 | Linux-arm64) platform=linux-arm64 ;;
  Darwin-arm64) platform=darwin-arm64 ;;
  Darwin-x86_64) platform=darwin-x64 ;;
  *)
    echo "kimi-bridge: there is no program for $(uname -s) on $(uname -m); \`cargo install kimi-bridge\` builds one" >&2
    exit 1
    ;;
esac
# npm installs it inside this package or beside it.
for folder in "$here/node_modules/@kimi-bridge" "$here/../@kimi-bridge"; do
  [ -x "$folder/$platform/kimi-bridge" ] && exec "$folder/$platform/kimi-bridge" "$@"
done
echo "kimi-bridge: @kimi-bridge/$platform is not installed; install kimi-bridge again without \`--omit=optional\`" >&2
exit 1
