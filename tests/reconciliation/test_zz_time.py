import time
from tests.reconciliation.bank import *
from strongroom.reconciliation import import_report, read_report
async def test_t(bank):
    paid=await bank.hand_over(*(("Ada Lovelace", minor) for minor in range(1, 10001)))
    doc=statement(*(execution(p) for p in paid), opening=10**12)
    t=time.monotonic(); c=time.process_time(); r=read_report(doc); print('read',time.monotonic()-t, time.process_time()-c, len(doc))
    async with bank.operation() as op:
        orig=op.connection.execute
        async def ex(q,*a,**k):
            s=time.monotonic(); x=await orig(q,*a,**k); d=time.monotonic()-s
            if d>0.05: print(round(d,2), bytes(q)[:150] if isinstance(q,bytes) else q)
            return x
        op.connection.execute=ex
        t=time.monotonic(); c=time.process_time()
        await import_report(op, r)
        print('import',time.monotonic()-t, time.process_time()-c)
