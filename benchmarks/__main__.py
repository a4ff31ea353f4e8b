"""``python -m benchmarks [AREA …] [--json] [--rounds N]``: one table, baselines beside."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from importlib import import_module

# Each is a module with run(rounds); loaded when asked for: a machine with torch alone can run aby3.
AREAS = "wire debits questions cells deciding tensors wall workbench aby3".split()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("areas", nargs="*", choices=[*AREAS, []], help="all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--rounds", type=int, default=1, help="times as many measurements")
    parser.add_argument("--device", default="cpu", help="where aby3 computes, such as cuda:0")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="how much longer each message of aby3 takes: a far network")
    parsed = parser.parse_args()
    more = {"aby3": {"device": parsed.device, "delay_ms": parsed.delay_ms}}
    rows = [
        row
        for name in parsed.areas or AREAS
        for row in import_module(f"benchmarks.{name}").run(parsed.rounds, **more.get(name, {}))
    ]
    if parsed.json:
        machine = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
        print(
            json.dumps(
                {"machine": machine, "rows": [{**asdict(r), "ratio": r.ratio} for r in rows]}, indent=1, ensure_ascii=False
            )
        )
        return
    print(f"{'what':<40}{'ours':>10}{'baseline':>10} {'unit':<6}{'ratio':>7}  {'mark':<12} against")
    for r in rows:
        good = "met" if r.good else "MISSED"
        print(f"{r.what:<40}{r.ours:>10.3f}{r.baseline:>10.3f} {r.unit:<6}{r.ratio:>6.2f}×  {r.mark:<12} {good}; {r.against}")


if __name__ == "__main__":
    main()
