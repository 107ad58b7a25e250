"""The row to compare with: the same order creation, written the ordinary way.

FastAPI and pydantic, SQLAlchemy's ORM with an asynchronous session, one database transaction a request, uvicorn with
TLS, as its libraries' guides suggest and without tricks in either direction. It checks the caller's token and the
order's fields and stores the order as it came: nothing is sealed, no audit entry is written, no idempotency key kept.

`python -m bench.ordinary PORT CERTIFICATE CERTIFICATE_KEY` makes the tables and serves, with the database's URL in
ORDINARY_DATABASE and the key of the tokens in ORDINARY_KEY.
"""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, status
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from sqlalchemy import DateTime, ForeignKey, Numeric, String, UniqueConstraint, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

WORKERS = 2

engine = create_async_engine(os.environ["ORDINARY_DATABASE"], pool_size=20)
new_session = async_sessionmaker(engine, expire_on_commit=False)
token_key = OctKey.import_key(os.environ["ORDINARY_KEY"])
app = FastAPI()


class Base(DeclarativeBase):
    """The tables' root."""


class Customer(Base):
    """Made when an instruction names it for the first time."""

    __tablename__ = "customers"
    __table_args__ = (UniqueConstraint("tenant_id", "ref"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID]
    ref: Mapped[str] = mapped_column(String(50))


class Order(Base):
    """An order and its instructions."""

    __tablename__ = "orders"
    __table_args__ = (UniqueConstraint("tenant_id", "ref"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID]
    ref: Mapped[str] = mapped_column(String(50))
    details: Mapped[dict[str, str]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))
    instructions: Mapped[list["Instruction"]] = relationship(back_populates="order")


class Instruction(Base):
    """One payment to make."""

    __tablename__ = "instructions"
    __table_args__ = (UniqueConstraint("order_id", "ref"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    order_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("orders.id"))
    customer_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("customers.id"))
    ref: Mapped[str] = mapped_column(String(50))
    direction: Mapped[str] = mapped_column(String(6))
    amount: Mapped[Decimal] = mapped_column(Numeric(15, 3))
    currency: Mapped[str] = mapped_column(String(3))
    country: Mapped[str] = mapped_column(String(2))
    settled_by_date: Mapped[date]
    details: Mapped[dict[str, str]] = mapped_column(JSONB)
    order: Mapped[Order] = relationship(back_populates="instructions")


Ref = Annotated[str, Field(min_length=1, max_length=50, pattern=r"^[A-Za-z0-9\-_.]+$")]
MetadataKey = Annotated[str, Field(max_length=40)]
MetadataValue = Annotated[str, Field(max_length=500)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=50)]


class Direction(StrEnum):
    """Collect or pay out."""

    DEBIT = "DEBIT"
    CREDIT = "CREDIT"


class Wire(BaseModel):
    """Bodies are written in camel case."""

    model_config = ConfigDict(alias_generator=to_camel)


class InstructionBody(Wire):
    """An instruction as a client sends it."""

    instruction_ref: Ref
    customer_ref: Ref
    direction: Direction
    amount: Annotated[Decimal, Field(gt=0, max_digits=15, decimal_places=3)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    settled_by_date: date
    metadata: Metadata = {}


class OrderBody(Wire):
    """An order as a client sends it."""

    order_ref: Ref
    instructions: list[InstructionBody] = []
    metadata: Metadata = {}


async def session() -> AsyncIterator[AsyncSession]:
    """One session, and one transaction, for each request."""
    async with new_session.begin() as opened:
        yield opened


async def tenant(authorization: Annotated[str, Header()], x_tenant_id: Annotated[uuid.UUID, Header()]) -> uuid.UUID:
    """The tenant that the token is for; 401 for a token that isn't good, 403 when the header names another."""
    try:
        token = jwt.decode(authorization.removeprefix("Bearer "), token_key, algorithms=["HS256"])
        jwt.JWTClaimsRegistry(exp={"essential": True}).validate(token.claims)
    except (JoseError, ValueError) as error:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED) from error
    if token.claims["tenant"] != str(x_tenant_id):
        raise HTTPException(status.HTTP_403_FORBIDDEN)
    return x_tenant_id


# "function": the transaction is committed before the answer leaves, not after.
Session = Annotated[AsyncSession, Depends(session, scope="function")]
TenantId = Annotated[uuid.UUID, Depends(tenant)]


@app.post("/v1/order-management", status_code=status.HTTP_202_ACCEPTED)
async def create_order(body: OrderBody, tenant_id: TenantId, session: Session) -> dict[str, str]:
    """Store an order; 400 when its reference is taken."""
    customers = {
        instruction.customer_ref: await customer(session, tenant_id, instruction.customer_ref)
        for instruction in body.instructions
    }
    order = Order(tenant_id=tenant_id, ref=body.order_ref, details=body.metadata)
    order.instructions = [
        Instruction(
            customer_id=customers[instruction.customer_ref].id,
            ref=instruction.instruction_ref,
            direction=instruction.direction,
            amount=instruction.amount,
            currency=instruction.currency,
            country=instruction.country,
            settled_by_date=instruction.settled_by_date,
            details=instruction.metadata,
        )
        for instruction in body.instructions
    ]
    session.add(order)
    try:
        await session.flush()
    except IntegrityError as error:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "ORDER_ALREADY_EXISTS") from error
    return {"orderRef": order.ref}


async def customer(session: AsyncSession, tenant_id: uuid.UUID, ref: str) -> Customer:
    """The customer with this reference, made when unknown."""
    wanted = select(Customer).where(Customer.tenant_id == tenant_id, Customer.ref == ref)
    found = await session.scalar(wanted)
    if found is not None:
        return found
    await session.execute(insert(Customer).values(tenant_id=tenant_id, ref=ref).on_conflict_do_nothing())
    return (await session.scalars(wanted)).one()


@app.get("/v1/order-management/{order_ref}")
async def read_order(order_ref: str, tenant_id: TenantId, session: Session) -> dict[str, object]:
    """What the order with this reference holds; 400 when there is none."""
    wanted = select(Order).where(Order.tenant_id == tenant_id, Order.ref == order_ref)
    order = await session.scalar(wanted.options(selectinload(Order.instructions)))
    if order is None:
        raise HTTPException(status.HTTP_400_BAD_REQUEST, "ORDER_NOT_FOUND")
    return {"orderRef": order.ref, "instructions": [instruction.ref for instruction in order.instructions]}


async def make_tables() -> None:
    """Create the tables that aren't there."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()


if __name__ == "__main__":
    port, certificate, certificate_key = sys.argv[1:]
    asyncio.run(make_tables())
    uvicorn.run(
        "bench.ordinary:app",
        host="127.0.0.1",
        port=int(port),
        workers=WORKERS,
        ssl_certfile=certificate,
        ssl_keyfile=certificate_key,
        access_log=False,
        log_level="warning",
    )
