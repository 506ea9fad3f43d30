#!/bin/sh
# State of one SLURM job for Snakemake: prints running, success or failed.
# A service that does not answer, or a state unknown here, means "running": Snakemake asks again later.
export LC_ALL=C
if answer=$(squeue --noheader --states=all --jobs="$1" --format=%T 2>&1) && [ -n "$answer" ]; then
    state=$answer
elif [ -n "$answer" ] && [ "${answer#*Invalid job id}" = "$answer" ]; then
    state=UNREACHABLE
# squeue forgets a job some minutes after its end (MinJobAge). The accounting database, if there is one, does not.
elif ! command -v sacct >/dev/null; then
    state=LOST
elif answer=$(sacct --noheader --allocations --parsable2 --jobs="$1" --format=State 2>&1); then
    state=${answer:-LOST}
elif [ "${answer#*accounting storage is disabled}" = "$answer" ]; then
    state=UNREACHABLE
else
    state=LOST
fi
case $state in
    COMPLETED*) echo success ;;
    BOOT_FAIL* | CANCELLED* | DEADLINE* | FAILED* | NODE_FAIL* | OUT_OF_MEMORY*) echo failed ;;
    PREEMPTED* | REVOKED* | TIMEOUT* | LOST) echo failed ;;
    *) echo running ;;
esac
