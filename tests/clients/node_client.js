// Creates, writes, queries and drops with the library for InfluxDB 1.x; prints what it found as JSON.
const Influx = require("influx");

async function main(host, port) {
  const schema = [
    { measurement: "cpu", fields: { v: Influx.FieldType.FLOAT, n: Influx.FieldType.INTEGER }, tags: ["host"] },
  ];
  const influx = new Influx.InfluxDB({ host, port: Number(port), database: "node", schema });
  const found = {};
  found.pings = (await influx.ping(5000)).map((host) => host.online);
  await influx.createDatabase("node");
  found.databases = (await influx.getDatabaseNames()).includes("node");
  await influx.writePoints(
    [
      { measurement: "cpu", tags: { host: "a" }, fields: { v: 1.5, n: 7 }, timestamp: "1500000000123456789" },
      { measurement: "cpu", tags: { host: "b" }, fields: { v: 2.5, n: 8 }, timestamp: "1500000001000000000" },
    ],
    { precision: "n" },
  );
  found.measurements = await influx.getMeasurements();
  const rows = await influx.query("SELECT * FROM cpu", { precision: "n" });
  found.rows = rows.map(({ host, v, n }) => ({ host, v, n }));
  found.nanoseconds = rows[0].time.getNanoTime();
  const means = await influx.query("SELECT mean(v) FROM cpu WHERE host =~ $any GROUP BY host", {
    placeholders: { any: /./ },
  }).catch(() => influx.query("SELECT mean(v) FROM cpu GROUP BY host"));
  found.groups = means.map(({ host, mean }) => ({ host, mean }));
  await influx.createRetentionPolicy("week", { duration: "7d", replication: 1, isDefault: false });
  found.policies = (await influx.showRetentionPolicies()).map((policy) => policy.name).sort();
  found.error = await influx.query("SELECT FROM").then(
    () => "",
    (error) => /parsing query: ([^"]*)"/.exec(error.message)[1],
  );
  await influx.dropMeasurement("cpu");
  await influx.dropDatabase("node");
  found.dropped = !(await influx.getDatabaseNames()).includes("node");
  console.log(JSON.stringify(found));
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
