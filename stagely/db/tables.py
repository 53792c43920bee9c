"""The same tables as Core objects, for statements: `vms.c.id` is a column to every type checker."""

from __future__ import annotations

from sqlalchemy import Table
from sqlmodel import SQLModel

from stagely.db import models


def _table(model: type[SQLModel]) -> Table:
    return SQLModel.metadata.tables[str(model.__tablename__)]


teams = _table(models.Team)
api_tokens = _table(models.ApiToken)
projects = _table(models.Project)
environments = _table(models.Environment)
workflow_runs = _table(models.WorkflowRun)
build_jobs = _table(models.BuildJob)
build_slots = _table(models.BuildSlot)
pull_request_comments = _table(models.PullRequestComment)
vms = _table(models.Vm)
reaper_sightings = _table(models.ReaperSighting)
gateway_beats = _table(models.GatewayBeat)
webhook_deliveries = _table(models.WebhookDelivery)
agent_events = _table(models.AgentEventRow)
agent_commands = _table(models.AgentCommand)
log_chunks = _table(models.LogChunk)
steps = _table(models.StepRow)
