"""shipping.sensor.v1: what loggers in parcels of cold goods measured. Read by shipping's cold-chain view (services/shipping/views.py).

Key: order id. The content is that of EPCIS 2.0's `sensorElementList`, with whole tenths of a degree instead of fractions, and
the band that the logger was set to. Readings may come late, twice and in any order.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schemas.cold_chain import AskedBand, Tenths
from schemas.model import Command, CommandPart, Id, Time


class SensorMetadata(CommandPart):
    """EPCIS `sensorMetadata`: which logger, and what it was set to when it was packed."""

    device_id: Id
    band: AskedBand


class SensorReport(CommandPart):
    """EPCIS `sensorReport`: one reading."""

    type: Literal["Temperature"] = "Temperature"
    uom: Literal["CEL"] = "CEL"
    value_tenths: Tenths
    time: Time


class SensorElement(CommandPart):
    sensor_metadata: SensorMetadata
    sensor_report: Annotated[list[SensorReport], Field(min_length=1, max_length=1000)]


class SensorReported(Command):
    """A logger tells what it measured, once or in heaps."""

    parcel_id: Id
    sensor_element_list: Annotated[list[SensorElement], Field(min_length=1, max_length=100)]


MESSAGES = (SensorReported,)
