// Objects in boxes.

import { objects } from "./objects.js";

export default objects({ least: 0.05, suffix: "objects" });
