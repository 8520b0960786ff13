// The driver adapter makes Prisma 6 use its engine as WebAssembly; 7 has no such setting any more.
import { PrismaPg } from "@prisma/adapter-pg";

export default {
  engine: "js",
  experimental: { adapter: true },
  schema: "schema.prisma",
  migrations: { path: "migrations" },
  adapter: async () =>
    new PrismaPg(
      { connectionString: process.env.DATABASE_URL, allowExitOnIdle: true },
      { schema: process.env.DATABASE_SCHEMA },
    ),
};
