#!/bin/sh
# Tells somebody the news from cron, each line once however often cron runs it. A line of a crontab:
#
#     */15 * * * *  curl -fsS https://example.com/headlines.txt | /opt/news.sh CONVERSATION
#
# It runs as the agent's user, with HASHEE_AGENT_ID in the environment; `hashee-agent conversations` shows the ids.
# The key is made of the line: what was told under a key in the last 30 days is not told again.
set -eu
conversation=$1

while IFS= read -r line || [ -n "$line" ]; do
    [ -n "$line" ] || continue
    key=news-$(printf %s "$line" | sha256sum | cut -c 1-32)
    printf '%s\n' "$line" | hashee-agent send --to "$conversation" --key "$key" -
done
