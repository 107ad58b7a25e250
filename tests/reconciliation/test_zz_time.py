import time, pytest
from tests.reconciliation.bank import *
from strongroom.reconciliation import import_report, read_report
async def test_t(bank):
    t=time.monotonic()
    await bank.instruct(*(("Ada Lovelace", minor) for minor in range(1, 10001))); print('instruct',time.monotonic()-t); t=time.monotonic()
    files=await bank.dispatch(); print('dispatch',time.monotonic()-t, len(files)); t=time.monotonic()
    paid=await bank.paid(); print('paid',time.monotonic()-t); t=time.monotonic()
    doc=statement(*(execution(p) for p in paid), opening=10**12)
    t=time.monotonic(); r=read_report(doc); print('read',time.monotonic()-t, len(doc))
    import cProfile,pstats
    t=time.monotonic()
    pr=cProfile.Profile(); pr.enable()
    async with bank.operation() as op: await import_report(op, r)
    pr.disable()
    print('import',time.monotonic()-t); pstats.Stats(pr).sort_stats('cumtime').print_stats(25)
    t=time.monotonic()
    print(await bank.summary(), time.monotonic()-t)
