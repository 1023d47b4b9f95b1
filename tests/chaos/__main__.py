"""`python -m tests.chaos --kills N --seed S`: kill processes of rehearsed sweeps, and check the results.

Prints the number of kills and what was lost; exit code 1 if anything was.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from sweeps.sweep import Sweep
from tests.chaos.checking import Findings, check_files, check_sweep
from tests.chaos.killing import TARGETS, Killer, Nodes, descendants, sweep_up
from tests.postgresql import NoPostgreSQL, PostgreSQL, running_server

ROOT = Path(__file__).parent.parent.parent
SWEEP = """\
name: {name}
model: {{name: /nowhere, size: 8e9}}
data: {{train: /nowhere.jsonl}}
training: {{max_steps: 40}}
search: {{sampler: {sampler}, pruner: {pruner}, seed: {seed}}}
reliability:
  {{lease_seconds: 10, outage_seconds: 120, keep_adapters: {keep_adapters}, checkpoints: {checkpoints}}}
trials: {trials}
seats: 3
workers: 2
storage: {storage}
output: {output}
"""
KEEP_ADAPTERS = 4
SWEEPS_PER_CLUSTER = 5
SWEEP_SECONDS = 900
"""A sweep that takes longer is stuck."""


class Chaos:
    """Runs sweeps one after another until the number of kills is reached."""

    def __init__(
        self,
        kills: int,
        seed: int,
        folder: Path,
        *,
        trials: int,
        pause: tuple[float, float],
        with_cluster: bool,
        database: PostgreSQL | None,
    ) -> None:
        self.kills, self.wanted, self.trials, self.pause = 0, kills, trials, pause
        self.generator = random.Random(seed)
        self.folder = folder
        self.findings = Findings()
        self.with_cluster = with_cluster
        self.nodes: Nodes | None = None
        self.database = database
        self.environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
        self.struck = dict.fromkeys(TARGETS, 0)

    def run(self) -> None:
        """Run until the wanted number of kills; the last sweep is still finished."""
        number = 0
        while self.kills < self.wanted:
            # Alternately one sweep on the driver's own Ray, and several on a cluster that outlives the
            # driver.
            on_cluster = number % (1 + SWEEPS_PER_CLUSTER) > 0 and self.with_cluster
            if on_cluster and self.nodes is None:
                self.nodes = Nodes()
            elif not on_cluster:
                self.close()
            self.sweep(number)
            number += 1

    def close(self) -> None:
        """End the cluster, if there is one."""
        if self.nodes is not None:
            self.nodes.close()
            self.nodes = None

    def sweep(self, number: int) -> None:
        """One sweep, killed and started again until it is finished, then checked."""
        sampler, pruner = (("random", "none"), ("tpe", "successive_halving"))[number % 2]
        storage = "null", f"journal:{self.folder / f'sweep-{number}.journal'}", "postgresql"
        url = storage[number % len(storage)]
        if url == "postgresql":
            url = self.database.new_database().replace(":hush", "") if self.database else "null"
        file = self.folder / f"sweep-{number}.yaml"
        file.write_text(
            SWEEP.format(
                name=f"chaos-{number}",
                sampler=sampler,
                pruner=pruner,
                seed=self.generator.randrange(10**6),
                keep_adapters=KEEP_ADAPTERS,
                trials=self.trials,
                storage=url,
                # In every other pair of sweeps, checkpoints go through a store.
                checkpoints=f"file://{self.folder}/stored" if number // 2 % 2 else "null",
                output=self.folder / "runs",
            ),
            encoding="utf-8",
        )
        before, deadline = self.kills, time.monotonic() + SWEEP_SECONDS
        while self.run_driver(file) != 0:
            if time.monotonic() > deadline:
                self.findings.lost += 1
                self.findings.problems.append(f"{file.name}: not finished after {SWEEP_SECONDS} s")
                return
        sweep = Sweep.load(file, check_files=False)
        found = check_sweep(sweep.study(), sweep.run_folder, self.trials)
        found.problems += check_files(sweep.study(), sweep.run_folder, KEEP_ADAPTERS)
        left = list(self.folder.glob(f"stored/{sweep.config.name}/*/*"))
        found.problems += [f"a checkpoint was left in the store: {path}" for path in left]
        self.findings.add(found)
        print(
            f"{file.stem} ({sampler}, {url.partition(':')[0]}): {self.kills - before} kills, "
            f"{found.trials_checked} trials, {found.wrong} wrong",
            flush=True,
        )
        for line in found.problems:
            print(f"  {line}", flush=True)
        if not found.problems:
            shutil.rmtree(sweep.run_folder)

    def run_driver(self, file: Path) -> int:
        """Start the driver once and strike its processes; returns its exit code."""
        where = [] if self.nodes is None else ["--address", self.nodes.address]
        log = file.with_suffix(".log").open("a", encoding="utf-8")
        driver = psutil.Popen(
            [sys.executable, "-m", "tests.chaos.driver", str(file), *where],
            cwd=ROOT,
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        # A driver that finds no database refuses to start, and is started again.
        nodes, may_refuse, begun = self.nodes, False, file.with_suffix(".log").stat().st_size
        killer = Killer(self.generator, lambda: [driver.pid] if nodes is None else nodes.pids(), nodes)
        own: list[psutil.Process] = []
        while driver.poll() is None:
            try:
                driver.wait(self.generator.uniform(*self.pause))
                break
            except psutil.TimeoutExpired:
                pass
            if self.kills >= self.wanted:
                continue
            own = descendants(driver.pid) if self.nodes is None else []
            target = self.generator.choices(list(TARGETS), list(TARGETS.values()))[0]
            if target in ("driver", "term") and not self.is_ready(file, begun):
                # Kill a starting driver less often, or it never gets any further.
                target = self.generator.choice([target, "worker", "worker"])
            if target == "storage":
                done = self.interrupt_storage(file)
                may_refuse = may_refuse or done
            elif target == "rival":
                done = self.rival(file, driver, begun)
            else:
                done = killer.strike(target, driver)
            self.struck[target] += done
            self.kills += done and target != "rival"
        code = driver.wait()
        for process in sweep_up(own):
            self.findings.problems.append(f"a process outlived its driver: {process}")
        log.close()
        if code == 2 and not may_refuse:
            self.findings.lost += 1
            self.findings.problems.append(f"{file.name}: the driver refused to go on")
            return 0
        return int(code)

    def is_ready(self, file: Path, begun: int) -> bool:
        """Whether the driver whose log begins at `begun` has a worker at work."""
        return b"ready, untouched base" in file.with_suffix(".log").read_bytes()[begun:]

    def interrupt_storage(self, file: Path) -> bool:
        """Stop the database server without warning, and restart it after a while."""
        if self.database is None or "postgresql" not in file.read_text(encoding="utf-8"):
            return False
        self.database.stop("immediate")
        time.sleep(self.generator.uniform(0.5, 6.0))
        self.database.start()
        return True

    def rival(self, file: Path, driver: psutil.Popen, begun: int) -> bool:
        """A second driver is refused while the first one runs, whose log begins at `begun`."""
        if not self.is_ready(file, begun):
            return False
        command = [sys.executable, "-m", "tests.chaos.driver", str(file)]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True)
        if driver.poll() is None and done.returncode != 2:
            self.findings.problems.append(f"{file.name}: a second driver was not refused: {done.stderr}")
        return driver.poll() is None


def main() -> int:
    """Run the kills and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=24, help="of each sweep")
    parser.add_argument("--pause", type=float, nargs=2, default=(0.5, 8.0), help="seconds between two kills")
    parser.add_argument("--no-cluster", action="store_true", help="only sweeps on a Ray of their own")
    parser.add_argument("--keep", type=Path, help="folder for logs and failed sweeps")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="sweeps-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            database = stack.enter_context(running_server())
        except NoPostgreSQL as error:
            print(f"without PostgreSQL: {error}")
            database = None
        chaos = Chaos(
            options.kills,
            options.seed,
            folder,
            trials=options.trials,
            pause=tuple(options.pause),
            with_cluster=not options.no_cluster,
            database=database,
        )
        stack.callback(chaos.close)
        chaos.run()
    found = chaos.findings
    for line in found.problems:
        print(line)
    print("struck: " + ", ".join(f"{count} {target}" for target, count in chaos.struck.items()))
    print(f"kills: {chaos.kills}")
    for name in ("trials_checked", "given_up", "lost", "twice", "left_running", "differing"):
        print(f"{name}: {getattr(found, name)}")
    if not options.keep and not found.problems:
        shutil.rmtree(folder)
    return 1 if found.problems or found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
