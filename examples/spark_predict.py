"""Predict a table of photographs with Spark: python spark_predict.py RUN TABLE.parquet OUTPUT"""

import sys

import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from ramstrans.inference import BatchPredictor

run, table, output = sys.argv[1:4]
predictor = BatchPredictor(run)


def predict(batches):
    for batch in batches:
        yield pa.RecordBatch.from_pydict(predictor(batch.to_pydict()), predictor.schema)


spark = SparkSession.builder.getOrCreate()
photographs = spark.read.parquet(table).select("path")
photographs.mapInArrow(predict, from_arrow_schema(predictor.schema)).write.parquet(output)
