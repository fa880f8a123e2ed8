"""`python -m diplex_cli` is `diplex`: what `up` starts its children with."""

from diplex_cli.main import main

raise SystemExit(main())
