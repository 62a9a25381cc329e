"""Agents that behave and misbehave as they are told."""

from fault_agents import agent, scene

__all__ = ["agent", "scene"]
