#!/usr/bin/env bash
# Compiles the Collector of manifest.yaml from Go modules into .cache, once; prints where it lies. Needs Go 1.21 or
# newer, which fetches the toolchain that the modules ask for.
# About ten minutes of one core the first time, and 1 GB for Go's caches; a rerun is instant.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../../../.." && mkdir -p .cache && cd .cache && pwd -P)
builder=go.opentelemetry.io/collector/cmd/builder@v0.161.0
mark=$(sha256sum <"$here/manifest.yaml" | cut -c1-12)
binary=$cache/collector-$mark
if [ ! -x "$binary" ]; then
  export PATH=$PATH:/usr/local/go/bin CGO_ENABLED=0 GOFLAGS="-buildvcs=false ${GOFLAGS:--p=2}"
  if ! command -v go >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Go" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang-go; } >/dev/null 2>&1 || true
  fi
  if ! command -v go >/dev/null; then
    echo "the Collector cannot be compared: Go is needed to compile it, and there is none" >&2
    exit 1
  fi
  work=$(mktemp -d "$cache/collector-build.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  cp "$here/manifest.yaml" "$work"
  echo "compiling the Collector, ten minutes or so" >&2
  (cd "$work" && nice go run "$builder" --config manifest.yaml --ldflags="-s -w") >"$work/log" 2>&1 || {
    tail -30 "$work/log" >&2
    exit 1
  }
  mv "$work/build/collector" "$binary.$$" && mv "$binary.$$" "$binary"
fi
echo "$binary"
