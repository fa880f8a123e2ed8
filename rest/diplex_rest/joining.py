"""Several pages of metrics as one: the shim's, its sister processes' and the router's."""


def joined(*pages: str) -> str:
    """Pages in Prometheus' text form as one, in which each family stands once and whole.

    The form allows one HELP and one TYPE a family, and wants its samples in one group.
    Source: https://prometheus.io/docs/instrumenting/exposition_formats/

    >>> joined("# TYPE a gauge\\na 1\\n", "# TYPE b gauge\\nb 3\\n# TYPE a gauge\\na 2\\n").splitlines()
    ['# TYPE a gauge', 'a 1', 'a 2', '# TYPE b gauge', 'b 3']
    """
    families: dict[str, tuple[dict[str, str], list[str]]] = {}
    for page in pages:
        family = ""
        for line in page.splitlines():
            words = line.split(maxsplit=3)
            if line.startswith(("# HELP ", "# TYPE ")) and len(words) > 2:
                family = words[2]
                families.setdefault(family, ({}, []))[0].setdefault(words[1], line)
            elif words and words[0] != "#":
                families.setdefault(family, ({}, []))[1].append(line)
    lines = [line for told, samples in families.values() for line in (*told.values(), *samples)]
    return "".join(f"{line}\n" for line in lines)
