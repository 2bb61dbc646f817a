#!/usr/bin/env bash
# What the tests' real parts need: a JDK and Maven (Kafka), npm (ClickHouse server), Chromium (pages).
# Gets what is missing where it may, says what it could not get; with CI=true that is a failure.
set -uo pipefail

missing() {
  local packages=()
  command -v java >/dev/null || packages+=(openjdk-17-jdk-headless)
  command -v mvn >/dev/null || packages+=(maven)
  command -v npm >/dev/null || packages+=(npm)
  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || packages+=(chromium)
  echo "${packages[*]:-}"
}

need=$(missing)
if [ -n "$need" ]; then
  sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  if command -v apt-get >/dev/null && $sudo true 2>/dev/null; then
    echo "installing for the tests: $need" >&2
    $sudo apt-get update -qq >/dev/null
    for package in $need; do
      # One by one: a name that this release lacks must not keep the others out.
      $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 ||
        { [ "$package" = openjdk-17-jdk-headless ] &&
          $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends default-jdk-headless >/dev/null 2>&1; }
    done
  fi
fi

need=$(missing)
if [ -n "$need" ]; then
  echo "not to be had here, so the tests that need it cannot run: $need" >&2
  [ "${CI:-}" = true ] && exit 1
fi
exit 0
