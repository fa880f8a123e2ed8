"""The router: a thin asyncio shell around `diplex_core.admission`, speaking `diplex.v1.Router`."""
