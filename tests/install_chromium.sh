#!/usr/bin/env bash
# The browser tests drive a real Chromium. Uses the one named by $CHROMIUM or found on the PATH; on Debian and Ubuntu installs it as root.
set -euo pipefail
if [ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then
  exit 0
fi
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  echo "Installing Chromium for the browser tests ..."
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core fonts-noto-color-emoji >/dev/null
else
  echo "No Chromium found: install it, or set CHROMIUM=/path/to/chrome; the browser tests will be skipped." >&2
fi
