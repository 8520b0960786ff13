// The driver adapter makes Prisma 6 use its engine as WebAssembly; 7 has no such setting any more.
import { PrismaPg } from "@prisma/adapter-pg";

// The engine never clears the ten-second timer of its advisory lock: the command would stay until it rings.
const { setTimeout } = globalThis;
globalThis.setTimeout = ((callback, delay, ...rest) => {
  const timer = setTimeout(callback, delay, ...rest);
  return delay >= 10_000 ? timer.unref() : timer;
}) as typeof setTimeout;

const schema = process.env.DATABASE_SCHEMA;

export default {
  engine: "js",
  experimental: { adapter: true },
  schema: "schema.prisma",
  migrations: { path: "migrations" },
  adapter: async () =>
    new PrismaPg(
      {
        connectionString: process.env.DATABASE_URL,
        options: `-c search_path="${schema}"`,
        // Nobody ends the pool: the command would wait ten seconds for its connections to be idle.
        idleTimeoutMillis: 10,
      },
      { schema },
    ),
};
