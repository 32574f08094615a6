// Products, orders and customers that change all the time: about fifty changes a second.
const names = ["lamp", "chair", "desk", "shelf", "carpet", "mirror", "clock", "vase"];
const pick = (n) => Math.floor(Math.random() * n);

if (db.products.estimatedDocumentCount() === 0) {
  for (let start = 0; start < 20000; start += 1000) {
    db.products.insertMany(
      Array.from({ length: 1000 }, (_, i) => ({
        _id: start + i,
        name: `${names[pick(names.length)]} ${start + i}`,
        price: NumberDecimal((pick(50000) / 100).toFixed(2)),
        stock: pick(500),
        tags: [names[pick(names.length)]],
      })),
    );
  }
}

for (;;) {
  for (let i = 0; i < 10; i++) {
    const product = pick(20000);
    db.orders.insertOne({
      customer: pick(5000),
      lines: [{ product: product, count: 1 + pick(3) }],
      at: new Date(),
      state: "new",
    });
    db.products.updateOne({ _id: product }, { $inc: { stock: -1 } });
    db.customers.updateOne(
      { _id: pick(5000) },
      { $set: { seen_at: new Date() }, $inc: { visits: 1 } },
      { upsert: true },
    );
  }
  db.orders.updateOne({ state: "new" }, { $set: { state: "sent", sent_at: new Date() } });
  if (pick(10) === 0) db.orders.deleteOne({ state: "sent" });
  sleep(600);
}
