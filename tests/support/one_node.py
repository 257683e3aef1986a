"""A Slurm cluster of one node, this machine: munged, slurmctld and slurmd in a folder of their own."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = {"munge": ["munged"], "slurm-wlm": ["slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel"]}
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
ReturnToService=2
MpiDefault=none
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing_packages() -> list[str]:
    """The Debian packages whose programs are not here."""
    return [package for package, names in PROGRAMS.items() if not all(shutil.which(n, path=_PATH) for n in names)]


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[None]:
    """The cluster within the block; SLURM_CONF says where it is. RuntimeError with the logs' ends if it fails."""
    config = folder / "slurm.conf"
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    fields = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "folder": folder}
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    config.write_text(CONFIG.format(**fields, **ports, cpus=os.cpu_count()))
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    os.environ.update(SLURM_CONF=str(config), PATH=_PATH)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in _commands(folder):
            with (folder / f"{command[0]}.out").open("wb") as output:
                command = ["setpriv", "--pdeathsig", "TERM", *command]  # none outlives a test that is killed
                daemons.append(subprocess.Popen(command, stdout=output, stderr=output))
        _wait_until_idle(folder)
        try:
            yield
        finally:
            _end_jobs()
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _commands(folder: Path) -> list[list[str]]:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
    files |= {"log-file": folder / "munged.log", "seed-file": folder / "munged.seed"}
    munged = ["munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items())]
    return [munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D"]]


def _wait_until_idle(folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
        if state.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = [f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in sorted(folder.glob("*.log"))]
    logs += [f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in sorted(folder.glob("*.out"))]
    raise RuntimeError(f"Slurm did not start: {state.stdout}{state.stderr}\n" + "\n".join(logs))


def _end_jobs(seconds: float = 60) -> None:
    """Cancel what is left and wait until it is gone: a job's own daemon never ends when Slurm's are gone before it."""
    subprocess.run(["scancel", f"--user={getpass.getuser()}"], check=False)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout.strip():
            return
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
