#!/bin/sh
# token.sh URL FILE: asks the node at URL, which has to be on this machine, for a
# join token that two nodes may use within an hour, and leaves it in FILE. A FILE
# that is there stays: nodes that have joined need it to start again, used up or
# not, and a stopped cluster would have nobody to ask.
set -eu
url=$1 file=$2
[ ! -s "$file" ] || exit 0

tries=120
until answer=$(timeout 10 wget -q -O - --header 'Content-Type: application/json' --post-data '{"ttl_seconds":3600,"uses":2}' "$url/cluster/tokens"); do
  tries=$((tries - 1))
  [ "$tries" -gt 0 ] || { echo "no token from $url within two minutes" >&2; exit 1; }
  sleep 1
done
token=${answer#*'"token":"'}
token=${token%%'"'*}
case $token in dnj*) ;; *) echo "an answer without a token" >&2; exit 1 ;; esac

# The nodes run as another user than this one.
umask 022
printf '%s\n' "$token" >"$file.new"
mv "$file.new" "$file"
