// node ask.mjs URL: what the official client for Node gets, as ask.py has it.
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const { texts, images } = JSON.parse(readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none" });
const { data } = await client.embeddings.create({ model: "siglit-demo", input: [...texts, ...images] });
const rows = data.map((one) => one.embedding);
console.log(JSON.stringify({ texts: rows.slice(0, texts.length), images: rows.slice(texts.length) }));
