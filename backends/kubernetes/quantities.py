"""Amounts as the API writes them (`500m`, `1.5Gi`, `2e3`), and whether a shape fits into some. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from worker.protocol import Shape, format_bytes, format_cpus

_FACTORS = {
    **{suffix: 1024.0 ** (power + 1) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))},
    **{suffix: 1000.0 ** (power + 1) for power, suffix in enumerate(("k", "M", "G", "T", "P", "E"))},
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
}


def amount(text: object) -> float:
    """What cannot be read is nothing, so that it is never taken for room."""
    words = str(text).strip()
    for suffix in sorted(_FACTORS, key=len, reverse=True):
        if words.endswith(suffix):
            return _number(words.removesuffix(suffix)) * _FACTORS[suffix]
    return _number(words)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if abs(number) < float("inf") else 0.0


def fits_words(shape: Shape, room: tuple[int, int, int]) -> str:
    """Of what the shape asks too much; "" where it fits. Milli-CPUs, bytes, GPUs."""
    cpus, memory, gpus = room
    short = [
        f"{format_cpus(shape.cpus)} CPUs" if shape.cpus > cpus else "",
        f"{format_bytes(shape.memory)} of memory" if shape.memory > memory else "",
        f"{shape.gpus} GPUs" if shape.gpus > gpus else "",
    ]
    named = [word for word in short if word]
    return f"no node has {' and '.join(named)} for a worker" if named else ""


def shown(cpus: int, memory: int, gpus: int) -> str:
    parts = [
        f"{format_cpus(cpus)} CPUs" if cpus else "",
        format_bytes(memory) if memory else "",
        f"{gpus} GPUs" if gpus else "",
    ]
    return ", ".join(part for part in parts if part) or "nothing"
