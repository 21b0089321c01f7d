'use strict';
// The npm client etcd3: KV, transactions, watches, leases, locks, elections. One "ok NAME" line each.

const assert = require('node:assert/strict');
const { setTimeout: pause } = require('node:timers/promises');
const { Etcd3 } = require('etcd3');

const hosts = process.argv[2].split(',').map((host) => `http://${host}`);
const directory = `node/${process.hrtime.bigint()}/`;
// with -apart each key is in a directory of its own, so that they lie on all shards of a server that has several
const prefix = process.argv.includes('-apart') ? directory.replaceAll('/', '-') : directory;

async function kv(client) {
  assert.equal(await client.get('none'), null);
  await client.put('a').value('1');
  const put = await client.put('a').value('2').getPrevious();
  assert.equal(put.value.toString(), '1');
  assert.equal(await client.get('a').string(), '2');
  await client.put('c').value('c');
  await client.put('b').value('b');
  assert.deepEqual(await client.getAll().prefix('').sort('Key', 'Descend').keys(), ['c', 'b', 'a']);
  assert.deepEqual(await client.getAll().prefix('').strings(), { a: '2', b: 'b', c: 'c' });
  assert.equal(await client.getAll().prefix('').count(), 3);
  const limited = await client.getAll().prefix('').limit(2).exec();
  assert.equal(limited.more, true);
  assert.equal((await client.delete().key('a')).deleted, '1');
  assert.equal((await client.delete().all()).deleted, '2');
}

async function transaction(client) {
  const create = (value) => client.if('lock', 'Create', '==', 0)
    .then(client.put('lock').value(value)).else(client.get('lock')).commit();
  assert.equal((await create('first')).succeeded, true);
  const lost = await create('second');
  assert.equal(lost.succeeded, false);
  assert.equal(lost.responses[0].response_range.kvs[0].value.toString(), 'first');
}

async function watch(client) {
  const watcher = await client.watch().prefix('w/').withPreviousKV().create();
  const events = [];
  let come;
  const all = new Promise((resolve) => { come = resolve; });
  const note = (kind) => (kv, previous) => {
    events.push(`${kind} ${kv.key.toString()}=${kv.value.toString()} was ${previous ? previous.value.toString() : ''}`);
    if (events.length === 3) come();
  };
  watcher.on('put', note('put')).on('delete', note('delete'));
  await client.put('w/a').value('1');
  await client.put('w/a').value('2');
  await client.delete().key('w/a');
  await all;
  await watcher.cancel();
  assert.deepEqual(events, ['put w/a=1 was ', 'put w/a=2 was 1', 'delete w/a= was 2']);
}

async function lease(client) {
  const kept = client.lease(2); // keeps itself alive
  await kept.put('l').value('kept');
  const left = client.lease(2, { autoKeepAlive: false });
  await left.put('m').value('left');
  const began = Date.now();
  while (await client.get('m') !== null) {
    assert.ok(Date.now() - began < 6000, 'the key of a lease of 2 s does not go');
    await pause(50);
  }
  assert.ok(Date.now() - began > 1500, `a lease of 2 s ended after ${Date.now() - began} ms`);
  while (Date.now() - began < 4000) await pause(50); // twice its time
  assert.equal(await client.get('l').string(), 'kept');
  await kept.revoke();
  assert.equal(await client.get('l'), null);
}

async function lock(client) {
  let inside = 0;
  let times = 0;
  const once = async () => {
    for (;;) { // the client does not wait for a held lock: it refuses
      try {
        await client.lock('mutex').ttl(10).do(async () => {
          inside += 1;
          assert.equal(inside, 1);
          await pause(20);
          inside -= 1;
          times += 1;
        });
        return;
      } catch (error) {
        if (error.constructor.name !== 'EtcdLockFailedError') throw error;
        await pause(20);
      }
    }
  };
  await Promise.all([once(), once(), once(), once()]);
  assert.equal(times, 4);
}

async function election(client) {
  const candidate = client.election('e', 10);
  const campaign = candidate.campaign('me');
  await new Promise((resolve, reject) => campaign.on('elected', resolve).on('error', reject));
  assert.equal(await candidate.leader(), 'me');
  await campaign.resign();
  assert.equal(await candidate.leader(), undefined);
}

async function cluster(client) {
  assert.equal((await client.cluster.memberList({})).members.length, 3);
  assert.match((await client.maintenance.status()).version, /^3\./);
}

(async () => {
  const all = new Etcd3({ hosts });
  const client = all.namespace(prefix);
  for (const check of [kv, transaction, watch, lease, lock, election]) {
    await check(client);
    console.log('ok', check.name);
  }
  await cluster(all);
  console.log('ok cluster');
  all.close();
  process.exit(0); // the client may keep a timer of a lease that is gone, for the lease's whole time
})().catch((error) => {
  console.log(error.stack);
  process.exit(1);
});
