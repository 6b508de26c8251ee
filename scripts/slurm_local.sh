#!/usr/bin/env bash
# bash scripts/slurm_local.sh start|stop : a one-machine Slurm cluster of this machine's cores, for trying sweeps.
# Needs Debian's slurm-wlm and munge (apt-get install slurm-wlm munge), and root. Everything it writes is in DSNN_SLURM
# (default /var/tmp/dsnn-slurm), which must be readable to all; sbatch finds it by: export SLURM_CONF=that/slurm.conf
set -eu
STATE="${DSNN_SLURM:-/var/tmp/dsnn-slurm}"
CONF="$STATE/slurm.conf"
HOST="$(hostname -s)"

die() {
    echo "slurm_local: $*" >&2
    exit 1
}

ended() { # waits until the process of a pid file is gone
    local pid
    [ -f "$1" ] || return 0
    pid="$(cat "$1")"
    kill "$pid" 2>/dev/null || return 0
    for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
}

stop() {
    for name in slurmd slurmctld munged; do ended "$STATE/$name.pid"; done
}

start() {
    for program in slurmctld slurmd munged; do
        command -v "$program" >/dev/null || [ -x "/usr/sbin/$program" ] || die "$program is missing; apt-get install slurm-wlm munge."
    done
    [ "$(id -u)" = 0 ] || die "root starts the daemons; use sudo."
    stop
    mkdir -p "$STATE/spool" "$STATE/ctld"
    [ -s "$STATE/munge.key" ] || (umask 077 && head -c 128 /dev/urandom >"$STATE/munge.key")
    chown -R root "$STATE"
    cat >"$CONF" <<END
ClusterName=dsnn
SlurmctldHost=$HOST
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$STATE/munge.socket
CryptoType=crypto/munge
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/spool
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,requeue_setup_env_fail
MinJobAge=300
KillWait=10
NodeName=$HOST CPUs=$(nproc) RealMemory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 * 9 / 10)) State=UNKNOWN
PartitionName=local Nodes=$HOST Default=YES MaxTime=INFINITE State=UP
END
    PATH="$PATH:/usr/sbin"
    munged --force --key-file="$STATE/munge.key" --socket="$STATE/munge.socket" --pid-file="$STATE/munged.pid" \
        --log-file="$STATE/munged.log" --seed-file="$STATE/munged.seed"
    export SLURM_CONF="$CONF"
    slurmctld -c
    slurmd -c
    for _ in $(seq 100); do
        if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then
            echo "export SLURM_CONF=$CONF"
            return
        fi
        sleep 0.2
    done
    die "the node did not come up; see the logs in $STATE."
}

case "${1:-}" in
start) start ;;
stop) stop ;;
*) die "say start or stop." ;;
esac
