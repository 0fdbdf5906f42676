// Studies, runs and jobs as they were last reported: loaded once, then changed by the events of the service.
import { ask } from "./api.js";

const kinds = ["studies", "runs", "jobs"];
const store = { service: null, studies: new Map(), runs: new Map(), jobs: new Map() };

export async function loadStore() {
  const found = await ask("/api/overview");
  store.service = found.service;
  for (const kind of kinds) store[kind] = new Map(found[kind].map(each => [each.id, each]));
}

// Take over a change; return the ids of what changed.
export function applyChange(kind, { [kind]: changed = [], removed = [] }) {
  // What is new comes first: lists are ordered so.
  const added = changed.filter(each => !store[kind].has(each.id));
  if (added.length) store[kind] = new Map([...added.map(each => [each.id, each]), ...store[kind]]);
  for (const each of changed) store[kind].set(each.id, each);
  for (const id of removed) store[kind].delete(id);
  return new Set([...changed.map(each => each.id), ...removed]);
}

export const known = (kind, id) => store[kind].get(id);
export const listed = kind => [...store[kind].values()];
export const service = () => store.service;
