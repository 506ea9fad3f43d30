#!/usr/bin/env bash
# A throw-away SLURM cluster on this machine, for tests: one controller and two nodes, all on loopback.
#
#   mini_slurm.sh up DIR [OWNER]    start it in DIR (made if absent; a short path, it holds a socket).
#                                   With OWNER, a process id, the cluster also ends when that process does.
#   source DIR/env                  what a client needs: PATH, SLURM_CONF, USER
#   mini_slurm.sh down DIR          end it with every job it runs, and remove DIR
#   mini_slurm.sh needs             name the programs that are missing; exit status 1 if any is
#
# Debian: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
#
# Node cpu1 is in partition `cpu`; node gpu1, with two stand-in GPUs, in `gpu`. No systemd, no accounting database,
# nothing in /etc, no privilege: as root or as a user, everything runs as whoever starts it.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

NODE_CPUS=4
NODE_MEMORY=64000 # declared, not enforced, so that the steps' requests fit on a small machine

missing_programs() {
    local program missing=()
    for program in munged slurmctld slurmd sbatch srun squeue scancel sinfo scontrol; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [ ${#missing[@]} = 0 ] || { echo "${missing[*]}" && return 1; }
}

taken() { # is somebody listening on this loopback port?
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_ports() { # the first of three free ports in a row, below the range that outgoing connections use
    local first
    for _ in {1..100}; do
        first=$((RANDOM % 12000 + 20000))
        taken $first || taken $((first + 1)) || taken $((first + 2)) || { echo $first && return; }
    done
    echo "no three free ports in a row between 20000 and 32000" >&2
    return 1
}

write_configuration() { # DIR FIRST_PORT
    local dir=$1 port=$2 host me
    host=$(hostname -s)
    me=$(id -un)
    # A job's CUDA_VISIBLE_DEVICES is the number at the end of its device's name; any character device will do.
    ln -sf /dev/null "$dir/gpu0" && ln -sf /dev/zero "$dir/gpu1"
    echo "NodeName=gpu1 Name=gpu File=$dir/gpu[0-1]" >"$dir/gres.conf"
    cat >"$dir/slurm.conf" <<CONF
ClusterName=wsss
# Who: one user runs all, and proves it with a munge daemon of this cluster's own.
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
# Where: loopback only.
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
NodeName=cpu1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=$NODE_CPUS RealMemory=$NODE_MEMORY
NodeName=gpu1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=$NODE_CPUS RealMemory=$NODE_MEMORY Gres=gpu:2
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=gpu1 MaxTime=INFINITE State=UP
# More CPUs than the machine has are accepted as declared.
SlurmdParameters=config_overrides
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# Files of the daemons.
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
# No cgroups, no MPI, no mail.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
# Schedule at once, let a cancelled job save its state, and let squeue know finished jobs for an hour.
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
KillWait=10
MinJobAge=3600
ReturnToService=2
CONF
}

start_daemons() { # DIR
    local dir=$1
    (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    munged --force --num-threads=2 --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
        --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munged.seed"
    slurmctld -c
    slurmd -N cpu1
    slurmd -N gpu1
}

await_nodes() {
    for _ in {1..100}; do
        [ "$(sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | sort -u | wc -l)" = 2 ] && return
        sleep 0.1
    done
    return 1
}

up() { # DIR [OWNER]
    local dir attempt
    missing_programs >/dev/null || { echo "missing: $(missing_programs)" >&2 && return 1; }
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    [ ! -e "$dir/env" ] || { echo "$dir: there is a cluster already" >&2 && return 1; }
    mkdir -p "$dir"/{state,spool.cpu1,spool.gpu1,bin}
    # Snakemake's SLURM plugin clears SLURM_CONF before it calls srun, which a cluster outside /etc does not survive.
    cat >"$dir/bin/srun" <<SRUN
#!/bin/sh
SLURM_CONF='$dir/slurm.conf' exec '$(command -v srun)' "\$@"
SRUN
    chmod 755 "$dir" "$dir/bin/srun"
    printf 'export %s\n' "PATH='$dir/bin':\"\$PATH:/usr/sbin:/sbin\"" "SLURM_CONF='$dir/slurm.conf'" \
        "USER='$(id -un)'" >"$dir/env"
    source "$dir/env"
    for attempt in 1 2 3; do # another program may have taken a port since it was found free
        write_configuration "$dir" "$(free_ports)"
        if start_daemons "$dir" && await_nodes; then
            [ -z "${2:-}" ] || (outlive "$dir" "$2" </dev/null >/dev/null 2>&1 &)
            return
        fi
        stop_daemons "$dir"
    done
    tail -n 20 "$dir"/*.log >&2
    rm -rf "$dir"
    return 1
}

outlive() { # DIR OWNER
    trap '' HUP INT TERM
    while [ -e "$1/env" ]; do
        kill -0 "$2" 2>/dev/null || { down "$1" && return; }
        sleep 1
    done
}

ended() { # PID: gone, or a zombie that its parent has yet to notice
    ! kill -0 "$1" 2>/dev/null || grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null
}

stop_daemons() { # DIR: those whose process ids stand in DIR's own files
    local file pid
    for file in "$1"/slurmd.*.pid "$1/slurmctld.pid" "$1/munged.pid"; do
        pid=$({ tr -dc 0-9 <"$file"; } 2>/dev/null) || continue
        [ -n "$pid" ] || continue
        kill "$pid" 2>/dev/null || continue
        for _ in {1..50}; do ended "$pid" && break || sleep 0.1; done
        ended "$pid" || kill -9 "$pid" 2>/dev/null || true
    done
}

stop_strays() { # DIR: processes of jobs that SLURM lost sight of; they carry this cluster's name in their environment
    local file environment
    for file in /proc/[0-9]*/environ; do
        environment=$({ tr '\0' '\n' <"$file"; } 2>/dev/null) || continue
        if grep -qxF "SLURM_CONF=$1/slurm.conf" <<<"$environment" && grep -q '^SLURM_JOB_ID=' <<<"$environment"; then
            kill -9 "$(cut -d/ -f3 <<<"$file")" 2>/dev/null || true
        fi
    done
}

down() { # DIR
    local dir
    dir=$(cd "$1" 2>/dev/null && pwd) && [ -e "$dir/env" ] || { echo "$1: no cluster here" >&2 && return 1; }
    source "$dir/env"
    if timeout 5 scancel --user="$(id -un)" 2>/dev/null; then
        for _ in {1..40}; do [ -z "$(timeout 5 squeue --noheader 2>/dev/null)" ] && break || sleep 0.1; done
    fi
    stop_daemons "$dir"
    stop_strays "$dir"
    rm -rf "$dir"
}

case ${1:-} in
    up) up "${2:?DIR}" "${3:-}" ;;
    down) down "${2:?DIR}" ;;
    needs) missing_programs ;;
    *) sed -n '2,14s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
