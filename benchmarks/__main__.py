"""``python -m benchmarks [AREA …] [--json] [--rounds N]``: one table, baselines beside."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict

from benchmarks import cells, debits, deciding, questions, tensors, wire, workbench

AREAS = {"wire": wire.run, "debits": debits.run, "questions": questions.run, "cells": cells.run, "deciding": deciding.run,
         "tensors": tensors.run, "workbench": workbench.run}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("areas", nargs="*", choices=[*AREAS, []], help="all by default")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--rounds", type=int, default=1, help="times as many measurements")
    parsed = parser.parse_args()
    rows = [row for name in parsed.areas or AREAS for row in AREAS[name](parsed.rounds)]
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
