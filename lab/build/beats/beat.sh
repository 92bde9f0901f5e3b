#!/usr/bin/env bash
# Runs the Beat with the folders that its service uses.
umask 0027
exec /usr/share/@beat@/bin/@beat@ --path.home /usr/share/@beat@ --path.config /etc/@beat@ \
    --path.data /var/lib/@beat@ --path.logs /var/log/@beat@ "$@"
