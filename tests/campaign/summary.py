"""What a campaign tried and what broke, by kind."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any


def summary(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Lines: for each kind the number of cases and how they ended, then each distinct fault with its count and first case."""
    ends: dict[str, Counter[str]] = defaultdict(Counter)
    spent: Counter[str] = Counter()
    faults: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        ends[row["kind"]][row["ended"]] += 1
        spent[row["kind"]] += row.get("ms", 0)
        if row.get("fault"):
            faults[row["kind"], row["fault"]].append(row)
    for kind, counts in sorted(ends.items()):
        total = sum(counts.values())
        said = ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
        yield f"{kind}: {total:,} cases, {spent[kind] / total:.1f} ms each: {said}"
    broken = sum(map(len, faults.values()))
    yield f"{sum(map(Counter.total, ends.values())):,} cases, {broken:,} broke in {len(faults):,} ways"
    for (kind, fault), found in sorted(faults.items(), key=lambda item: -len(item[1])):
        first = found[0]
        yield f"  {len(found):,} x {kind}: {fault}\n      first: case {first['case']}: {first.get('tried', '')}"
