
import cupy as cp, sys, numpy as np
m=cp.RawModule(path=sys.argv[1])
out=cp.zeros(132*32,cp.int64); res=cp.zeros(132*512,cp.float32)
for v in range(8):
    k=m.get_function(f'k{v}'); k.max_dynamic_shared_size_bytes=200000
    for _ in range(3): k((132,),(512,),(out,res),shared_mem=186000)
    o=out.get().reshape(132,16,2); d=(o[:,:,1].max(1)-o[:,:,0].min(1))
    print('k',v,'cycles a stage (16 warps together)',float(np.median(d))/64, 'FC1 us at 1.98', float(np.median(d))/64*16.48/1980)
w=[cp.random.randint(0,255,120_000_000,dtype=cp.uint8) for _ in range(3)]
sc=[cp.random.randint(0,120,14_000_000,dtype=cp.uint8) for _ in range(3)]
s=cp.cuda.Stream(non_blocking=True)
for name in sys.argv[2:]:
    k=m.get_function(name); k.max_dynamic_shared_size_bytes=200000
    N=12; o=[]
    for u in (17,8,3):
      with s:
        k((132,),(512,),(w[0],sc[0],res,np.uint32(u)),shared_mem=190000)
        s.begin_capture()
        for i in range(N): k((132,),(512,),(w[i%3],sc[i%3],res,np.uint32(u)),shared_mem=190000)
        g=s.end_capture()
        ts=[]
        for r in range(12):
            a=cp.cuda.Event();b=cp.cuda.Event();a.record(s);g.launch(s);b.record(s);b.synchronize();ts.append(cp.cuda.get_elapsed_time(a,b)*1000/N)
      o.append(float(np.median(ts)))
    print(name,[round(t,2) for t in o],'us for 17, 8, 3 units;', round(132*9*46080/(o[0]-o[1])/1e6,2),'TB/s between')
