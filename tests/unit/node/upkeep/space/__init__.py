"""Quota, alarms, and the room on the disks."""
